{{- define "preshuffle.labels" -}}
app.kubernetes.io/name: {{ .Values.name }}
{{- end -}}
{{- define "preshuffle.metadata" -}}
name: {{ .Values.name }}
namespace: {{ .Values.namespace.name }}
{{- end -}}
