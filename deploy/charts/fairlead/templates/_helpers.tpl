{{/* Values of the control plane: `pilot`, and the same names at the top level over it. */}}
{{- define "fairlead.pilot" -}}
{{- $pilot := deepCopy .Values.pilot -}}
{{- range $key, $_ := .Values.pilot -}}
{{- if and (hasKey $.Values $key) (ne $key "global") -}}
{{- $over := index $.Values $key -}}
{{- if and (kindIs "map" $over) (kindIs "map" (index $pilot $key)) -}}
{{- $_ := set $pilot $key (mergeOverwrite (deepCopy (index $pilot $key)) $over) -}}
{{- else -}}
{{- $_ := set $pilot $key $over -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $pilot -}}
{{- end -}}

{{- define "fairlead.suffix" -}}
{{- if and .Values.revision (ne .Values.revision "default") -}}-{{ .Values.revision }}{{- end -}}
{{- end -}}

{{- define "fairlead.revision" -}}
{{- default "default" .Values.revision -}}
{{- end -}}

{{- define "fairlead.name" -}}
istiod{{ include "fairlead.suffix" . }}
{{- end -}}

{{- define "fairlead.image" -}}
{{- $pilot := include "fairlead.pilot" . | fromYaml -}}
{{- if contains "/" $pilot.image -}}
{{ $pilot.image }}
{{- else -}}
{{- $hub := default .Values.global.hub $pilot.hub -}}
{{ with $hub }}{{ . }}/{{ end }}{{ $pilot.image }}:{{ default (default .Chart.AppVersion .Values.global.tag) $pilot.tag }}
{{- end -}}
{{- end -}}

{{/* Chosen by Kiali and by scrape configurations: app=istiod. */}}
{{- define "fairlead.labels" -}}
app: istiod
app.kubernetes.io/name: istiod
app.kubernetes.io/part-of: istio
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
istio.io/rev: {{ include "fairlead.revision" . | quote }}
{{- end -}}

{{- define "fairlead.selector" -}}
app: istiod
istio.io/rev: {{ include "fairlead.revision" . | quote }}
{{- end -}}

{{/* Names of the webhooks' objects: of the whole cluster, so another namespace's stand apart. */}}
{{- define "fairlead.apart" -}}
{{ if ne .Release.Namespace "istio-system" }}-{{ .Release.Namespace }}{{ end }}
{{- end -}}

{{- define "fairlead.injectorName" -}}
istio-sidecar-injector{{ include "fairlead.suffix" . }}{{ include "fairlead.apart" . }}
{{- end -}}

{{- define "fairlead.tagName" -}}
istio-revision-tag-{{ .tag }}{{ include "fairlead.apart" .root }}
{{- end -}}
