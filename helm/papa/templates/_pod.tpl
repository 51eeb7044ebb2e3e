{{/* Parts that all pods share. */}}

{{/* Call with (dict "root" $ "config" (list NAMES-OF-CONFIGMAPS)). */}}
{{- define "papa.environment" -}}
{{- $config := .config -}}
{{- with .root -}}
{{- $redis := include "papa.redis" . | fromJson -}}
envFrom:
{{- range $config }}
  - configMapRef: {name: {{ . }}}
{{- end }}
{{- with .Values.revisions.objectStore.existingSecret }}
  - secretRef: {name: {{ . }}}
{{- end }}
env:
  - {name: HOME, value: /var/lib/papa}
{{- if not (include "papa.sets" (dict "root" . "name" "HF_HOME")) }}
  - {name: HF_HOME, value: /var/lib/papa/hub}
{{- end }}
{{- if $redis.existingSecret }}
  - name: PAPA_REDIS__PASSWORD
    valueFrom: {secretKeyRef: {name: {{ $redis.existingSecret }}, key: {{ $redis.passwordKey }}}}
{{- end }}
{{- if and .Values.tracing.enabled .Values.tracing.existingSecret }}
  - name: PAPA_TRACING__HEADERS
    valueFrom: {secretKeyRef: {name: {{ .Values.tracing.existingSecret }}, key: {{ .Values.tracing.headersKey }}}}
{{- end }}
  - name: PAPA_GENERATOR__TOKEN
    valueFrom: {secretKeyRef: {name: {{ include "papa.engineSecret" . }}, key: {{ .Values.generator.token.key }}}}
{{- include "papa.moreEnvironment" . }}
{{- end }}
{{- end -}}

{{/* .Values.extraEnv; a name that the chart sets as well is refused, since Kubernetes would keep both. */}}
{{- define "papa.moreEnvironment" -}}
{{- range .Values.extraEnv }}
{{- if has .name (list "HOME" "PAPA_REDIS__PASSWORD" "PAPA_TRACING__HEADERS" "PAPA_GENERATOR__TOKEN" "RAY_USAGE_STATS_ENABLED" "RAY_ENABLE_UV_RUN_RUNTIME_ENV" "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO" "RAY_REDIS_CA_CERT") }}
{{- fail (printf "extraEnv sets %s, which the chart sets itself" .name) }}
{{- end }}
{{- end }}
{{- $names := list }}
{{- range .Values.extraEnv }}{{ $names = append $names .name }}{{ end }}
{{- if ne (len $names) (len (uniq $names)) }}{{ fail "extraEnv sets a name twice" }}{{ end }}
{{- with .Values.extraEnv }}
{{ toYaml . | indent 2 }}
{{- end }}
{{- end -}}

{{/* Whether extraEnv names a variable, which then wins over the chart's default. */}}
{{- define "papa.sets" -}}
{{- $name := .name -}}
{{- range .root.Values.extraEnv }}{{ if eq .name $name }}yes{{ end }}{{ end -}}
{{- end -}}

{{- define "papa.engineSecret" -}}
{{- default (printf "%s-engine" (include "papa.fullname" .)) .Values.generator.token.existingSecret -}}
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
- {name: tmp, emptyDir: {sizeLimit: {{ .Values.scratch.tmp }}}}
- {name: data, emptyDir: {sizeLimit: {{ .Values.scratch.data }}}}
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
