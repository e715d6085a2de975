{{/* What a person sees after `helm install`. It ends with commands that work. */}}
{{- define "microservice.notes" -}}
{{- $v := include "microservice.values" . | fromYaml -}}
{{- include "microservice.integers" $v -}}
{{- $name := include "microservice.name" . -}}
{{ $name }} is being installed into {{ .Release.Namespace }}. Wait until it serves:

  kubectl -n {{ .Release.Namespace }} rollout status deployment/{{ $name }}
  helm test -n {{ .Release.Namespace }} {{ .Release.Name }}
{{ if $v.grpc.enabled }}
Then ask it{{ if $v.grpc.nodePort }} (it is on port {{ $v.grpc.nodePort }} of every node, too){{ end }}:

  kubectl -n {{ .Release.Namespace }} port-forward deployment/{{ $name }} {{ $v.grpc.port }} &
  {{- if $v.reflection }}
  grpcurl -plaintext 127.0.0.1:{{ $v.grpc.port }} list
  {{- end }}
  grpcurl -plaintext -d '{"service": "readiness"}' 127.0.0.1:{{ $v.grpc.port }} grpc.health.v1.Health/Check
{{- else }}
Then ask it:

  kubectl -n {{ .Release.Namespace }} port-forward deployment/{{ $name }} {{ $v.http.port }} &
  curl http://127.0.0.1:{{ $v.http.port }}/readyz
{{- end }}
{{- end -}}
