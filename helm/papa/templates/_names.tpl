{{- define "papa.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- include "papa.short" .Values.fullnameOverride -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- include "papa.short" .Release.Name -}}
{{- else -}}
{{- include "papa.short" (printf "%s-%s" .Release.Name $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* At most 40 characters, since KubeRay and this chart append to it: what is longer ends in a hash of the whole, so that
two long names that begin alike stay two. */}}
{{- define "papa.short" -}}
{{- if le (len .) 40 -}}{{ . | trimSuffix "-" }}{{- else -}}
{{- printf "%s-%s" (. | trunc 31 | trimSuffix "-") (sha256sum . | trunc 8) -}}
{{- end -}}
{{- end -}}

{{/* Labels of a pod: what selects it, and what the operator of the cluster adds. Nothing that changes with the version of
the chart: KubeRay starts a second cluster where a label of a template changes. What a component gives wins. Call like
papa.selector, with "values". */}}
{{- define "papa.podLabels" -}}
{{ include "papa.selector" . }}
{{- with merge (dict) (default dict .values.podLabels) (default dict .root.Values.podLabels) }}
{{- range $label, $_ := . }}
{{- if or (hasPrefix "ray.io/" $label) (has $label (list "app.kubernetes.io/instance" "app.kubernetes.io/part-of" "app.kubernetes.io/component")) }}
{{- fail (printf "podLabels: pods are selected by %s, which is not the operator's to give" $label) }}
{{- end }}
{{- end }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels by which objects are selected. Call with (dict "root" $ "component" "gateway"). */}}
{{- define "papa.selector" -}}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/part-of: papa
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* The same with everything that informs; on objects, never in selectors. */}}
{{- define "papa.labels" -}}
{{ include "papa.selector" . }}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- with .root.Values.commonLabels }}
{{- range $label, $_ := . }}
{{- if has $label (list "app.kubernetes.io/instance" "app.kubernetes.io/part-of" "app.kubernetes.io/component" "app.kubernetes.io/name" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart") }}
{{- fail (printf "commonLabels: every object has a label %s of the chart's already" $label) }}
{{- end }}
{{- end }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Call with (dict "root" $ "image" .Values.image.gateway "registry" "…"). */}}
{{- define "papa.image" -}}
{{- $name := .image.repository -}}
{{- if .registry -}}{{- $name = printf "%s/%s" (trimSuffix "/" .registry) .image.repository -}}{{- end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .root.Chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "papa.gatewayImage" -}}
{{- include "papa.image" (dict "root" . "image" .Values.image.gateway "registry" .Values.image.registry) -}}
{{- end -}}

{{- define "papa.serverImage" -}}
{{- include "papa.image" (dict "root" . "image" .Values.image.server "registry" .Values.image.registry) -}}
{{- end -}}

{{- define "papa.gatewayAccount" -}}
{{- if .Values.serviceAccount.create -}}{{ include "papa.fullname" . }}-gateway{{- else -}}{{ default "default" .Values.serviceAccount.gatewayName }}{{- end -}}
{{- end -}}

{{- define "papa.rayAccount" -}}
{{- if .Values.serviceAccount.create -}}{{ include "papa.fullname" . }}-ray{{- else -}}{{ default "default" .Values.serviceAccount.rayName }}{{- end -}}
{{- end -}}

{{- define "papa.revisionsClaim" -}}
{{- default (printf "%s-revisions" (include "papa.fullname" .)) .Values.revisions.existingClaim -}}
{{- end -}}
