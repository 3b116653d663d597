{{/* Name of everything this release creates. */}}
{{- define "streamagg.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "streamagg.selector" -}}
app.kubernetes.io/name: streamagg-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "streamagg.labels" -}}
{{ include "streamagg.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "streamagg.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "streamagg.name" .) }}
{{- end }}

{{- define "streamagg.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag }}
{{- end }}
