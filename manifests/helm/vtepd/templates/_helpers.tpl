{{- /* What the pods are selected by; it cannot change while the DaemonSet lives. */ -}}
{{- define "vtepd.selector" -}}
app.kubernetes.io/name: vtepd
{{- end }}

{{- define "vtepd.labels" -}}
{{ include "vtepd.selector" . }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- /* Where the probes ask: not every address that can be listened on can be asked. */ -}}
{{- define "vtepd.probeHost" -}}
{{- if eq .Values.http.host "0.0.0.0" -}}
127.0.0.1
{{- else if eq .Values.http.host "::" -}}
::1
{{- else -}}
{{ .Values.http.host }}
{{- end -}}
{{- end }}

{{- define "vtepd.httpAddress" -}}
{{- if contains ":" .Values.http.host -}}
[{{ .Values.http.host }}]:{{ .Values.http.port }}
{{- else -}}
{{ .Values.http.host }}:{{ .Values.http.port }}
{{- end -}}
{{- end }}
