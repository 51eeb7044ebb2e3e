{{/* Parts that all pods share. */}}

{{- define "papa.environment" -}}
{{- $redis := include "papa.redis" . | fromJson -}}
envFrom:
  - configMapRef: {name: {{ include "papa.fullname" . }}-settings}
{{- with .Values.revisions.objectStore.existingSecret }}
  - secretRef: {name: {{ . }}}
{{- end }}
env:
  - {name: HOME, value: /var/lib/papa}
  - {name: HF_HOME, value: /var/lib/papa/hub}
{{- if $redis.existingSecret }}
  - name: PAPA_REDIS__PASSWORD
    valueFrom: {secretKeyRef: {name: {{ $redis.existingSecret }}, key: {{ $redis.passwordKey }}}}
{{- end }}
{{- if and .Values.tracing.enabled .Values.tracing.existingSecret }}
  - name: PAPA_TRACING__HEADERS
    valueFrom: {secretKeyRef: {name: {{ .Values.tracing.existingSecret }}, key: {{ .Values.tracing.headersKey }}}}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . | indent 2 }}
{{- end }}
{{- end -}}

{{- define "papa.volumeMounts" -}}
{{- $redis := include "papa.redis" . | fromJson -}}
- {name: tmp, mountPath: /tmp}
- {name: data, mountPath: /var/lib/papa}
{{- if not .Values.revisions.objectStore.url }}
- {name: revisions, mountPath: /var/lib/papa-revisions}
{{- end }}
{{- if and $redis.tls.enabled $redis.tls.caSecret }}
- {name: redis-ca, mountPath: /etc/papa/redis-ca, readOnly: true}
{{- end }}
{{- if and .Values.tracing.enabled .Values.tracing.caSecret }}
- {name: tracing-ca, mountPath: /etc/papa/tracing-ca, readOnly: true}
{{- end }}
{{- end -}}

{{- define "papa.volumes" -}}
{{- $redis := include "papa.redis" . | fromJson -}}
- {name: tmp, emptyDir: {}}
- {name: data, emptyDir: {}}
{{- if not .Values.revisions.objectStore.url }}
- name: revisions
  persistentVolumeClaim: {claimName: {{ include "papa.revisionsClaim" . }}}
{{- end }}
{{- if and $redis.tls.enabled $redis.tls.caSecret }}
- name: redis-ca
  secret: {secretName: {{ $redis.tls.caSecret }}}
{{- end }}
{{- if and .Values.tracing.enabled .Values.tracing.caSecret }}
- name: tracing-ca
  secret: {secretName: {{ .Values.tracing.caSecret }}}
{{- end }}
{{- end -}}

{{/* Where pods may go. Call with (dict "root" $ "values" .Values.gateway "component" "gateway"). */}}
{{- define "papa.placement" -}}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- if .values.topologySpread }}
topologySpreadConstraints:
{{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "papa.selector" (dict "root" $.root "component" $.component) | nindent 8 }}
{{- end }}
{{- end }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}
