{{/* TLS and tokens of the gateway: settings, files, and what the test pod shows. Keys and tokens are only ever mounted. */}}

{{- define "papa.authMode" -}}
{{- dig "gateway" "auth" "mode" "none" .Values.config -}}
{{- end -}}

{{/* The gateway itself would refuse to start; so it is said before anything is installed. */}}
{{- define "papa.isOpen" -}}
{{- if and (eq (include "papa.authMode" .) "none") (not .Values.gateway.tls.clientCaSecret) -}}
{{- if not (dig "gateway" "insecure" false .Values.config) -}}
{{- fail "the gateway would ask nobody who calls: set config.gateway.auth.mode (docs/security.md), or allow it with config.gateway.insecure=true" -}}
{{- end -}}
yes
{{- end -}}
{{- end -}}

{{- define "papa.accessSettings" -}}
{{- $_ := include "papa.isOpen" . }}
{{- with .Values.gateway.tls }}
{{- if .existingSecret }}
PAPA_GATEWAY__TLS__CERTIFICATE: /etc/papa/tls/tls.crt
PAPA_GATEWAY__TLS__KEY: /etc/papa/tls/tls.key
# The kubelet's probes speak no TLS.
PAPA_GATEWAY__HEALTH_PORT: "50052"
{{- end }}
{{- if .clientCaSecret }}
PAPA_GATEWAY__TLS__CLIENT_CA: /etc/papa/client-ca/{{ .clientCaKey }}
{{- if .clientCrlKey }}
PAPA_GATEWAY__TLS__CLIENT_CRL: /etc/papa/client-ca/{{ .clientCrlKey }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.gateway.auth }}
{{- if .existingSecret }}
{{ ternary "PAPA_GATEWAY__AUTH__KEYS_FILE" "PAPA_GATEWAY__AUTH__JWKS" (eq (include "papa.authMode" $) "keys") }}: /etc/papa/auth/{{ .key }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "papa.accessMounts" -}}
{{- if .Values.gateway.tls.existingSecret }}
- {name: tls, mountPath: /etc/papa/tls, readOnly: true}
{{- end }}
{{- if .Values.gateway.tls.clientCaSecret }}
- {name: client-ca, mountPath: /etc/papa/client-ca, readOnly: true}
{{- end }}
{{- if .Values.gateway.auth.existingSecret }}
- {name: auth, mountPath: /etc/papa/auth, readOnly: true}
{{- end }}
{{- end -}}

{{- define "papa.accessVolumes" -}}
{{- with .Values.gateway.tls.existingSecret }}
- {name: tls, secret: {secretName: {{ . }}}}
{{- end }}
{{- with .Values.gateway.tls.clientCaSecret }}
- {name: client-ca, secret: {secretName: {{ . }}}}
{{- end }}
{{- with .Values.gateway.auth.existingSecret }}
- {name: auth, secret: {secretName: {{ . }}}}
{{- end }}
{{- end -}}

{{- define "papa.healthNumber" -}}
{{- ternary 50052 50051 (ne .Values.gateway.tls.existingSecret "") -}}
{{- end -}}

{{- define "papa.smokeEnvironment" -}}
{{- with .Values.gateway.smoke }}
{{- if .tokenSecret }}
- {name: PAPA_CLIENT__TOKEN_FILE, value: /etc/papa/token/{{ .tokenKey }}}
{{- end }}
{{- if $.Values.gateway.tls.existingSecret }}
- {name: PAPA_CLIENT__TLS, value: "true"}
{{- end }}
{{- if .caSecret }}
- {name: PAPA_CLIENT__CA, value: /etc/papa/ca/{{ .caKey }}}
{{- end }}
{{- if .certificateSecret }}
- {name: PAPA_CLIENT__CERTIFICATE, value: /etc/papa/certificate/tls.crt}
- {name: PAPA_CLIENT__KEY, value: /etc/papa/certificate/tls.key}
{{- end }}
{{- end }}
{{- end -}}

{{- define "papa.smokeMounts" -}}
{{- range $name, $secret := dict "token" .Values.gateway.smoke.tokenSecret "ca" .Values.gateway.smoke.caSecret "certificate" .Values.gateway.smoke.certificateSecret }}
{{- if $secret }}
- {name: {{ $name }}, mountPath: /etc/papa/{{ $name }}, readOnly: true}
{{- end }}
{{- end }}
{{- end -}}

{{- define "papa.smokeVolumes" -}}
{{- range $name, $secret := dict "token" .Values.gateway.smoke.tokenSecret "ca" .Values.gateway.smoke.caSecret "certificate" .Values.gateway.smoke.certificateSecret }}
{{- if $secret }}
- {name: {{ $name }}, secret: {secretName: {{ $secret }}}}
{{- end }}
{{- end }}
{{- end -}}
