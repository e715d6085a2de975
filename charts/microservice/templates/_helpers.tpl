{{/* The values: the library's, the deployable's own over them, and the environment's broker for all that name one. */}}
{{- define "microservice.values" -}}
{{- $v := mergeOverwrite (deepCopy .Values.microservice) (omit .Values "microservice" "deploy" "global") -}}
{{- $broker := (default dict .Values.global).broker -}}
{{- if and $broker $v.broker.url -}}
{{- $at := dict "name" $broker "namespace" "data" "cidr" "" "port" (ternary 9092 4222 (eq $broker "kafka")) -}}
{{- $url := printf "%s://%s.%s.svc.cluster.local:%d" $broker $at.name $at.namespace $at.port -}}
{{- $_ := set $v "broker" (dict "url" $url "at" $at) -}}
{{- end -}}
{{- $v | toYaml -}}
{{- end -}}

{{/* Makes every whole number of a map an integer, in place: YAML gives helm floats, and 1000000 would be 1e+06. */}}
{{- define "microservice.integers" -}}
{{- $map := . -}}
{{- range $key, $value := $map -}}
{{- if and (kindIs "float64" $value) (eq (floor $value) $value) -}}
{{- $_ := set $map $key (int64 $value) -}}
{{- else if kindIs "map" $value -}}
{{- include "microservice.integers" $value -}}
{{- else if kindIs "slice" $value -}}
{{- $items := list -}}
{{- range $item := $value -}}
{{- $box := dict "item" $item -}}
{{- include "microservice.integers" $box -}}
{{- $items = append $items $box.item -}}
{{- end -}}
{{- $_ := set $map $key $items -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A value as the text that it was written as: a fraction without an exponent. */}}
{{- define "microservice.text" -}}
{{- if kindIs "float64" . -}}
{{- regexReplaceAll "0+$" (printf "%.12f" .) "" -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}

{{- define "microservice.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "microservice.selector" -}}
app.kubernetes.io/name: {{ include "microservice.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "microservice.labels" -}}
{{ include "microservice.selector" . }}
app.kubernetes.io/part-of: {{ index .Chart.Annotations "amends.dev/part-of" | default "amends" }}
app.kubernetes.io/component: {{ index .Chart.Annotations "amends.dev/component" | default "service" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "microservice.image" -}}
{{- $image := . -}}
{{- $name := required "image.repository is not set" $image.repository -}}
{{- if $image.registry }}{{ $name = printf "%s/%s" $image.registry $name }}{{ end -}}
{{- if $image.digest -}}
{{ $name }}@{{ $image.digest }}
{{- else -}}
{{ $name }}:{{ required "image.tag or image.digest must be set: `make images` prints the tags" $image.tag }}
{{- end -}}
{{- end -}}

{{- define "microservice.metadata" -}}
name: {{ include "microservice.name" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "microservice.labels" . | nindent 2 }}
{{- end -}}

{{/* What restricted Pod Security asks for, and a file system that nobody writes to. */}}
{{- define "microservice.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "microservice.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end -}}
