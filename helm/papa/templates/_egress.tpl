{{/* DNS, both Redis, and what extraEgress names. Call with (dict "redis" … "gcs" … "policy"
.Values.networkPolicy "tracing" .Values.tracing). */}}
{{- define "papa.egressEverybodyNeeds" -}}
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
- ports:
    - {port: {{ .redis.port }}, protocol: TCP}
    {{- if ne (int .redis.port) (int .gcs.port) }}
    - {port: {{ .gcs.port }}, protocol: TCP}
    {{- end }}
    {{- if .redis.sentinel.service }}
    - {port: {{ .redis.sentinel.serverPort }}, protocol: TCP}
    {{- end }}
  {{- with .policy.redisTo }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- if .tracing.enabled }}
- ports: [{port: {{ (urlParse .tracing.endpoint).host | splitList ":" | last }}, protocol: TCP}]
  {{- with .policy.collectorTo }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- with .policy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end -}}
