{{/* Where both Redis are, whether they are named or run for a trial; each as JSON, to be read with fromJson. */}}
{{- define "papa.redis" -}}
{{- if .Values.valkey.enabled -}}
{{- dict "host" (printf "%s-valkey" (include "papa.fullname" .)) "port" 6379 "database" 0 "username" "" "existingSecret" (printf "%s-valkey" (include "papa.fullname" .)) "passwordKey" "password" "tls" (dict "enabled" false "caSecret" "") "cluster" (dict "enabled" false) "sentinel" (dict "service" "" "serverPort" 6379) | toJson -}}
{{- else -}}
{{- .Values.redis | toJson -}}
{{- end -}}
{{- end -}}

{{- define "papa.gcsRedis" -}}
{{- if .Values.valkey.enabled -}}
{{- dict "host" (printf "%s-valkey-gcs" (include "papa.fullname" .)) "port" 6379 "existingSecret" (printf "%s-valkey" (include "papa.fullname" .)) "passwordKey" "password" "tls" (dict "enabled" false "caSecret" "") | toJson -}}
{{- else -}}
{{- .Values.gcsRedis | toJson -}}
{{- end -}}
{{- end -}}

{{- define "papa.redisUrl" -}}
{{- $redis := include "papa.redis" . | fromJson -}}
{{- $user := ternary (printf "%s@" $redis.username) "" (ne $redis.username "") -}}
{{- $authority := ternary (printf "?ssl_ca_certs=/etc/papa/redis-ca/%s" ($redis.tls.caKey | default "")) "" (and $redis.tls.enabled (ne $redis.tls.caSecret "")) -}}
{{- $scheme := ternary "rediss" "redis" $redis.tls.enabled -}}
{{- if $redis.cluster.enabled -}}
{{- printf "%s+cluster://%s%s:%v%s" $scheme $user $redis.host (int $redis.port) $authority -}}
{{- else if $redis.sentinel.service -}}
{{- printf "%s+sentinel://%s%s:%v/%s/%v%s" $scheme $user $redis.host (int $redis.port) $redis.sentinel.service (int $redis.database) $authority -}}
{{- else -}}
{{- printf "%s://%s%s:%v/%v%s" $scheme $user $redis.host (int $redis.port) (int $redis.database) $authority -}}
{{- end -}}
{{- end -}}

{{- define "papa.gcsAddress" -}}
{{- $redis := include "papa.gcsRedis" . | fromJson -}}
{{- printf "%s://%s:%v" (ternary "rediss" "redis" $redis.tls.enabled) $redis.host (int $redis.port) -}}
{{- end -}}
