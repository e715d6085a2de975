{{/* The ConfigMap that names the webhooks; empty where none are given. */}}
{{- define "microservice.webhooksMap" -}}
{{- if .v.webhooks -}}
{{- printf "%s-webhooks" (include "microservice.name" .root) -}}
{{- end -}}
{{- end -}}

{{/* Where events are sent: the file of AMENDS_WEBHOOKS. Secrets and certificates are files beside it. */}}
{{- define "microservice.webhooks" -}}
{{- if .v.webhooks -}}
{{- $found := list -}}
{{- range .v.webhooks -}}
{{- $one := omit . "secret" "ca" -}}
{{- $_ := set $one "secretFile" (printf "/etc/amends/webhook-files/%s" .name) -}}
{{- if .ca }}{{ $_ := set $one "caFile" (printf "/etc/amends/webhook-files/%s.crt" .name) }}{{ end -}}
{{- $found = append $found $one -}}
{{- end -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "microservice.webhooksMap" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "microservice.labels" .root | nindent 4 }}
data:
  webhooks.json: |
    {{- dict "webhooks" $found | toPrettyJson | nindent 4 }}
{{- end -}}
{{- end -}}

{{/* The secrets and certificates of the webhooks, in one folder. */}}
{{- define "microservice.webhookFiles" -}}
{{- range $one := .v.webhooks }}
- secret: {name: {{ $one.secret.name }}, items: [{key: {{ $one.secret.key }}, path: {{ $one.name }}}]}
{{- with $one.ca }}
- configMap: {name: {{ .configMap }}, items: [{key: {{ .key }}, path: {{ $one.name }}.crt}]}
{{- end }}
{{- end }}
{{- end -}}

{{/* The port of a URL. */}}
{{- define "microservice.portOf" -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host -}}
{{- if $port }}{{ trimPrefix ":" $port }}{{ else }}{{ ternary "80" "443" (eq $url.scheme "http") }}{{ end -}}
{{- end -}}
