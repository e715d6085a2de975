{{/* Every object of a deployable. A chart's templates/all.yaml includes this, and nothing else. */}}
{{- define "microservice.all" -}}
{{- $context := dict "root" . "v" (include "microservice.values" . | fromYaml) -}}
{{- include "microservice.integers" $context.v -}}
{{- range $part := list "serviceaccount" "rbac" "deployment" "service" "hpa" "pdb" "networkpolicy" "certificate" "access" "roles" "webhooks" "monitoring" "test" }}
{{- with include (printf "microservice.%s" $part) $context | trim }}
---
{{ . }}
{{- end }}
{{- end }}
{{- end -}}
