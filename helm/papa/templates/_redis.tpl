{{/* Where both Redis are, whether they are named or run for a trial; each as JSON, to be read with fromJson. */}}
{{- define "papa.redis" -}}
{{- if .Values.valkey.enabled -}}
{{- dict "host" (printf "%s-valkey" (include "papa.fullname" .)) "port" 6379 "database" 0 "username" "" "existingSecret" (include "papa.valkeySecret" .) "passwordKey" "password" "tls" (dict "enabled" false "caSecret" "" "certificateSecret" "") "cluster" (dict "enabled" false) "sentinel" (dict "service" "" "serverPort" 6379) | toJson -}}
{{- else -}}
{{- .Values.redis | toJson -}}
{{- end -}}
{{- end -}}

{{- define "papa.gcsRedis" -}}
{{- if .Values.valkey.enabled -}}
{{- dict "host" (printf "%s-valkey-gcs" (include "papa.fullname" .)) "port" 6379 "username" "" "existingSecret" (include "papa.valkeySecret" .) "passwordKey" "password" "tls" (dict "enabled" false "caSecret" "" "certificateSecret" "") | toJson -}}
{{- else -}}
{{- .Values.gcsRedis | toJson -}}
{{- end -}}
{{- end -}}

{{- define "papa.redisUrl" -}}
{{- $redis := include "papa.redis" . | fromJson -}}
{{- $user := ternary (printf "%s@" $redis.username) "" (ne $redis.username "") -}}
{{- $files := list -}}
{{- if and $redis.tls.enabled $redis.tls.caSecret }}{{ $files = append $files (printf "ssl_ca_certs=/etc/papa/redis-ca/%s" $redis.tls.caKey) }}{{ end -}}
{{- if and $redis.tls.enabled $redis.tls.certificateSecret }}{{ $files = concat $files (list "ssl_certfile=/etc/papa/redis-certificate/tls.crt" "ssl_keyfile=/etc/papa/redis-certificate/tls.key") }}{{ end -}}
{{- $authority := ternary (printf "?%s" (join "&" $files)) "" (gt (len $files) 0) -}}
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

{{- define "papa.valkeySecret" -}}
{{- default (printf "%s-valkey" (include "papa.fullname" .)) .Values.valkey.existingSecret -}}
{{- end -}}

{{/* Two releases on one Redis must not meet: the release's name, of which a setting allows 32 characters. */}}
{{- define "papa.redisPrefix" -}}
{{- $name := include "papa.fullname" . -}}
{{- default (ternary $name (printf "%s-%s" ($name | trunc 23 | trimSuffix "-") (sha256sum $name | trunc 8)) (le (len $name) 32)) .Values.redis.prefix -}}
{{- end -}}
