{{/* Parts that all pods share. */}}

{{/* Call with (dict "root" $ "config" (list NAMES-OF-CONFIGMAPS) "more" TEXT "own" LIST): TEXT is a list of variables, LIST
what the operator gives this component alone. */}}
{{- define "papa.environment" -}}
envFrom:
{{- range .config }}
  - configMapRef: {name: {{ . }}}
{{- end }}
env: {{- include "papa.mergedEnvironment" (dict "root" .root "own" (default list .own) "env" (printf "%s\n%s" (include "papa.chartEnvironment" .root) (default "" .more))) | nindent 2 }}
{{- end -}}

{{- define "papa.chartEnvironment" -}}
{{- $redis := include "papa.redis" . | fromJson -}}
- {name: HOME, value: /var/lib/papa}
- {name: HF_HOME, value: {{ ternary "/hub" "/var/lib/papa/hub" (ne .Values.backbone.hubClaim "") }}}
{{- with .Values.trustedCa.existingSecret }}
# Python, the object store's client and the hub's read one of these each.
- {name: SSL_CERT_FILE, value: /etc/papa/trusted/{{ $.Values.trustedCa.key }}}
- {name: REQUESTS_CA_BUNDLE, value: /etc/papa/trusted/{{ $.Values.trustedCa.key }}}
{{- end }}
# Passwords and keys are files, which are read again when their Secret is changed.
{{- if $redis.existingSecret }}
- {name: PAPA_REDIS__PASSWORD_FILE, value: /etc/papa/redis/{{ $redis.passwordKey }}}
{{- end }}
{{- with .Values.revisions.objectStore }}
{{- if and .url .existingSecret }}
- {name: PAPA_STORE__CREDENTIALS, value: /etc/papa/object-store}
{{- end }}
{{- end }}
{{- if and .Values.tracing.enabled .Values.tracing.existingSecret }}
- {name: PAPA_TRACING__HEADERS_FILE, value: /etc/papa/tracing/{{ .Values.tracing.headersKey }}}
{{- end }}
- {name: PAPA_GENERATOR__TOKEN_FILE, value: /etc/papa/engine/{{ .Values.generator.token.key }}}
{{- end -}}

{{/* The chart's variables, .Values.extraEnv and those of one component, each name once: the last wins. Kubernetes would keep
all, and its API refuses some such lists. Call with (dict "root" $ "env" TEXT "own" LIST), TEXT a list of variables. */}}
{{- define "papa.mergedEnvironment" -}}
{{- range $given := list (default list .root.Values.extraEnv) .own }}
{{- $names := list }}
{{- range $given }}{{ $names = append $names .name }}{{ end }}
{{- if ne (len $names) (len (uniq $names)) }}{{ fail "extraEnv sets a name twice" }}{{ end }}
{{- end }}
{{- $last := dict }}
{{- $all := concat (.env | fromYamlArray) (default list .root.Values.extraEnv) .own }}
{{- range $at, $each := $all }}{{ $_ := set $last $each.name $at }}{{ end }}
{{- $merged := list }}
{{- range $at, $each := $all }}{{ if eq (get $last $each.name) $at }}{{ $merged = append $merged $each }}{{ end }}{{ end }}
{{- $merged | toYaml }}
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
- {name: engine, mountPath: /etc/papa/engine, readOnly: true}
{{- if $redis.existingSecret }}
- {name: redis, mountPath: /etc/papa/redis, readOnly: true}
{{- end }}
{{- with .Values.revisions.objectStore }}
{{- if and .url .existingSecret }}
- {name: object-store, mountPath: /etc/papa/object-store, readOnly: true}
{{- end }}
{{- end }}
{{- if and $redis.tls.enabled $redis.tls.caSecret }}
- {name: redis-ca, mountPath: /etc/papa/redis-ca, readOnly: true}
{{- end }}
{{- if and .Values.tracing.enabled .Values.tracing.existingSecret }}
- {name: tracing, mountPath: /etc/papa/tracing, readOnly: true}
{{- end }}
{{- if and .Values.tracing.enabled .Values.tracing.caSecret }}
- {name: tracing-ca, mountPath: /etc/papa/tracing-ca, readOnly: true}
{{- end }}
{{- if $redis.tls.certificateSecret }}
- {name: redis-certificate, mountPath: /etc/papa/redis-certificate, readOnly: true}
{{- end }}
{{- if .Values.trustedCa.existingSecret }}
- {name: trusted-ca, mountPath: /etc/papa/trusted, readOnly: true}
{{- end }}
{{- if .Values.backbone.hubClaim }}
- {name: hub, mountPath: /hub}
{{- end }}
{{- $places := list }}
{{- range .Values.extraVolumeMounts }}
{{- $place := clean .mountPath }}
{{- if or (has $place (list "/tmp" "/var/lib/papa" "/var/lib/papa-revisions" "/hub" "/backbone" "/etc/papa")) (hasPrefix "/etc/papa/" $place) }}
{{- fail (printf "extraVolumeMounts: the chart mounts a volume of its own at %s" .mountPath) }}
{{- end }}
{{- if has $place $places }}{{ fail (printf "extraVolumeMounts: two volumes are mounted at %s" .mountPath) }}{{ end }}
{{- $places = append $places $place }}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
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
- name: engine
  secret: {secretName: {{ include "papa.engineSecret" . }}}
{{- with $redis.existingSecret }}
- name: redis
  secret: {secretName: {{ . }}}
{{- end }}
{{- with .Values.revisions.objectStore }}
{{- if and .url .existingSecret }}
- name: object-store
  secret: {secretName: {{ .existingSecret }}}
{{- end }}
{{- end }}
{{- if and $redis.tls.enabled $redis.tls.caSecret }}
- name: redis-ca
  secret: {secretName: {{ $redis.tls.caSecret }}}
{{- end }}
{{- if and .Values.tracing.enabled .Values.tracing.existingSecret }}
- name: tracing
  secret: {secretName: {{ .Values.tracing.existingSecret }}}
{{- end }}
{{- if and .Values.tracing.enabled .Values.tracing.caSecret }}
- name: tracing-ca
  secret: {secretName: {{ .Values.tracing.caSecret }}}
{{- end }}
{{- with $redis.tls.certificateSecret }}
- name: redis-certificate
  secret: {secretName: {{ . }}}
{{- end }}
{{- with .Values.trustedCa.existingSecret }}
- name: trusted-ca
  secret: {secretName: {{ . }}}
{{- end }}
{{- with .Values.backbone.hubClaim }}
- name: hub
  persistentVolumeClaim: {claimName: {{ . }}}
{{- end }}
{{- $names := list }}
{{- range .Values.extraVolumes }}
{{- if has .name $names }}{{ fail (printf "extraVolumes: two volumes are called %s" .name) }}{{ end }}
{{- $names = append $names .name }}
{{- if has .name (splitList " " "tmp data revisions engine redis object-store redis-ca redis-certificate tracing tracing-ca trusted-ca hub backbone gcs-redis-ca gcs-redis-certificate tls client-ca auth") }}
{{- fail (printf "extraVolumes: the chart has a volume called %s; give yours another name" .name) }}
{{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Where pods may go. Call with (dict "root" $ "values" .Values.gateway "component" "gateway"). */}}
{{- define "papa.placement" -}}
{{- with default .root.Values.nodeSelector .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with default .root.Values.tolerations .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with default .root.Values.affinity .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with default .root.Values.priorityClassName .values.priorityClassName }}
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
