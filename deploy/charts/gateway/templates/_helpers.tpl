{{- define "gateway.name" -}}
{{- default .Release.Name .Values.name -}}
{{- end -}}

{{- define "gateway.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "gateway.name" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* A map as labels are one: all values texts. */}}
{{- define "gateway.texts" -}}
{{- $texts := dict -}}
{{- range $key, $value := . -}}
{{- $_ := set $texts $key (toString $value) -}}
{{- end -}}
{{- toYaml $texts -}}
{{- end -}}

{{/* Chosen by Gateway objects and by the Service: app and istio. */}}
{{- define "gateway.selector" -}}
{{- $name := include "gateway.name" . -}}
app: {{ default $name .Values.labels.app | toString | quote }}
istio: {{ default (trimPrefix "istio-" $name) .Values.labels.istio | toString | quote }}
{{- end -}}

{{/* What all objects say, and pods too. */}}
{{- define "gateway.common" -}}
{{- $own := dict "app.kubernetes.io/name" (include "gateway.name" .) "app.kubernetes.io/part-of" "istio" -}}
{{- with .Values.revision }}{{- $_ := set $own "istio.io/rev" . -}}{{- end -}}
{{- with .Values.networkGateway }}{{- $_ := set $own "topology.istio.io/network" . -}}{{- end -}}
{{- mergeOverwrite $own .Values.labels (include "gateway.selector" . | fromYaml) | toYaml -}}
{{- end -}}

{{- define "gateway.labels" -}}
{{- $own := dict "app.kubernetes.io/managed-by" .Release.Service "app.kubernetes.io/version" .Chart.AppVersion -}}
{{- include "gateway.texts" (mergeOverwrite $own (include "gateway.common" . | fromYaml)) -}}
{{- end -}}

{{- define "gateway.podLabels" -}}
{{- $own := dict "sidecar.istio.io/inject" "true" -}}
{{- $common := include "gateway.common" . | fromYaml -}}
{{- include "gateway.texts" (mergeOverwrite $own $common .Values.podLabels (include "gateway.selector" . | fromYaml)) -}}
{{- end -}}

{{- define "gateway.podAnnotations" -}}
{{- $own := dict "inject.istio.io/templates" "gateway" -}}
{{- include "gateway.texts" (mergeOverwrite $own .Values.annotations .Values.podAnnotations) -}}
{{- end -}}

{{/* Name, namespace, labels and annotations of an object. */}}
{{- define "gateway.metadata" -}}
name: {{ include "gateway.name" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "gateway.labels" . | nindent 2 }}
{{- with .Values.annotations }}
annotations:
  {{- include "gateway.texts" . | nindent 2 }}
{{- end }}
{{- end -}}
