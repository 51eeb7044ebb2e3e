{{/* {trainer: {min_labels: 5}} as PAPA_TRAINER__MIN_LABELS: "5". Call with (dict "prefix" "PAPA_" "values" …). */}}
{{- define "papa.flatten" -}}
{{- range $name, $value := .values }}
{{- $key := printf "%s%s" $.prefix (upper $name) }}
{{- if kindIs "map" $value }}
{{- include "papa.flatten" (dict "prefix" (printf "%s__" $key) "values" $value) }}
{{- else }}
{{ $key }}: {{ ternary $value (toJson $value) (kindIs "string" $value) | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Every PAPA_ variable that is no secret; the same for all pods, so that a revision means the same to all. */}}
{{- define "papa.settings" -}}
PAPA_DATA_DIR: /var/lib/papa
{{- with .Values.revisions.objectStore }}
{{- if .url }}
PAPA_STORE__URL: {{ .url | quote }}
{{- if .endpoint }}
AWS_ENDPOINT_URL: {{ .endpoint | quote }}
{{- if hasPrefix "http://" .endpoint }}
AWS_ALLOW_HTTP: "true"
{{- end }}
{{- end }}
{{- else }}
PAPA_STORE__PATH: /var/lib/papa-revisions
{{- end }}
{{- end }}
PAPA_BACKBONE: {{ ternary .Values.backbone.name (printf "/backbone/%s" .Values.backbone.name) (eq .Values.backbone.existingClaim "") | quote }}
PAPA_REDIS__PREFIX: {{ include "papa.redisPrefix" . | quote }}
PAPA_REDIS__URL: {{ include "papa.redisUrl" . | quote }}
PAPA_GATEWAY__HOST: {{ .Values.service.listen | quote }}
PAPA_GATEWAY__PORT: "50051"
PAPA_GATEWAY__GENERATOR: {{ include "papa.generatorService" . }}:9000
PAPA_GATEWAY__DRAIN_SECONDS: {{ add .Values.gateway.drainSeconds .Values.gateway.noticeSeconds | quote }}
PAPA_GATEWAY__NOTICE_SECONDS: {{ .Values.gateway.noticeSeconds | quote }}
{{- include "papa.accessSettings" . }}
PAPA_METRICS__HOST: {{ .Values.service.listen | quote }}
PAPA_METRICS__PORT: "9464"
{{- with .Values.tracing }}
{{- if .enabled }}
PAPA_TRACING__ENABLED: "true"
PAPA_TRACING__ENDPOINT: {{ .endpoint | quote }}
{{- if .caSecret }}
PAPA_TRACING__CA: /etc/papa/tracing-ca/{{ .caKey }}
{{- end }}
{{- end }}
{{- end }}
PAPA_RAY__SERVE_GRPC_PORT: "9000"
PAPA_GENERATOR__DEVICE: {{ .Values.generator.device }}
PAPA_GENERATOR__THREADS: {{ .Values.generator.threads | quote }}
# Serve has these limits from its own configuration. They are here as well because KubeRay does not change those of running
# worker groups: new ones need a new cluster, which a changed setting brings about.
PAPA_GENERATOR__REPLICAS: {{ .Values.generator.autoscaling.minReplicas | quote }}
PAPA_GENERATOR__MAX_REPLICAS: {{ include "papa.mostReplicas" . | quote }}
PAPA_GENERATOR__DRAIN_SECONDS: {{ .Values.generator.drainSeconds | quote }}
PAPA_TRAINER__DEVICE: {{ .Values.trainer.device }}
PAPA_TRAINER__THREADS: {{ .Values.trainer.threads | quote }}
{{- with .Values.trainer.autoscaling }}
PAPA_TRAINER__ACTORS: {{ .minActors | quote }}
PAPA_TRAINER__AUTOSCALING__MAX_ACTORS: {{ include "papa.mostTrainers" $ | quote }}
{{- end }}
{{- $live := include "papa.liveSettings" . | fromJson | keys }}
{{- $fixed := deepCopy .Values.config }}
{{- /* Gateways tell callers the default of overdraw. */}}
{{- range $name := without $live "overdraw" }}{{ $_ := unset $fixed.generator $name }}{{ end }}
{{- include "papa.flatten" (dict "prefix" "PAPA_" "values" $fixed) }}
{{- end -}}


{{/* What is logged and traced, as far as it needs no file in the pod. */}}
{{- define "papa.isObservability" -}}
{{- $fixed := list "PAPA_TRACING__ENABLED" "PAPA_TRACING__CA" -}}
{{- if and (or (hasPrefix "PAPA_LOG__" .) (hasPrefix "PAPA_TRACING__" .)) (not (has . $fixed)) }}yes{{ end -}}
{{- end -}}

{{/* All but what is no business of Ray's pods: a change of it must not start a second Ray cluster. Replicas have overdraw, like
everything live, from Serve's configuration. */}}
{{- define "papa.isOfRay" -}}
{{- $of := "yes" -}}
{{- range list "PAPA_GATEWAY__" "PAPA_PLAYGROUND__" "PAPA_CLIENT__" -}}
{{- if hasPrefix . $ }}{{ $of = "" }}{{ end -}}
{{- end -}}
{{- if or (include "papa.isObservability" .) (eq . "PAPA_GENERATOR__OVERDRAW") }}{{ $of = "" }}{{ end -}}
{{- $of -}}
{{- end -}}

{{/* Settings that a Ray pod starts with. */}}
{{- define "papa.raySettings" -}}
{{- range $name, $value := include "papa.settings" . | fromYaml }}
{{- if include "papa.isOfRay" $name }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Settings of Ray's pods that take effect in those that start from now on, and change no running cluster. */}}
{{- define "papa.rayObservability" -}}
{{- range $name, $value := include "papa.settings" . | fromYaml }}
{{- if include "papa.isObservability" $name }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* ConfigMaps are named by what is in them: a pod reads what its template was made with, however long it lives, and a pod
that an old cluster starts in the middle of an upgrade finds the old one. */}}
{{- define "papa.gatewayConfig" -}}
{{- printf "%s-gateway-%s" (include "papa.fullname" .) (include "papa.settings" . | sha256sum | trunc 10) -}}
{{- end -}}

{{- define "papa.rayConfig" -}}
{{- printf "%s-ray-%s" (include "papa.fullname" .) (include "papa.raySettings" . | sha256sum | trunc 10) -}}
{{- end -}}
