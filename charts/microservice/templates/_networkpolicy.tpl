{{- define "microservice.peer" -}}
- namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .namespace }}}}
  podSelector: {matchLabels: {app.kubernetes.io/name: {{ .name }}}}
{{- end -}}

{{/* Denies all, in and out, and opens one rule for each edge: who calls, and who is called. */}}
{{- define "microservice.networkpolicy" -}}
{{- $v := .v -}}
{{- if $v.networkPolicy.enabled -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "microservice.metadata" .root | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "microservice.selector" .root | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    {{- if $v.grpc.enabled }}
    {{- if $v.networkPolicy.fromOutside }}
    - ports: [{port: grpc, protocol: TCP}]
    {{- end }}
    {{- range $v.access }}
    - from:
        {{- include "microservice.peer" .from | nindent 8 }}
      ports: [{port: grpc, protocol: TCP}]
    {{- end }}
    {{- end }}
    {{- if $v.web.port }}
    {{- if $v.networkPolicy.fromOutside }}
    - ports: [{port: web, protocol: TCP}]
    {{- end }}
    {{- range $v.web.from }}
    - from:
        {{- include "microservice.peer" . | nindent 8 }}
      ports: [{port: web, protocol: TCP}]
    {{- end }}
    {{- end }}
    - from:  # helm test
        - podSelector: {matchLabels: {amends.dev/test-of: {{ include "microservice.name" .root }}}}
      ports: [{port: {{ ternary "grpc" "http" (and $v.grpc.enabled (not (include "microservice.tlsSecret" .))) }}, protocol: TCP}]
    - from:
        - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ $v.networkPolicy.monitoringNamespace }}}}
      ports: [{port: http, protocol: TCP}]
  egress:
    - to:
        - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
          podSelector: {matchLabels: {k8s-app: kube-dns}}
      ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
    {{- $calls := $v.networkPolicy.calls }}
    {{- if $v.database.enabled }}{{ $calls = append $calls $v.database.at }}{{ end }}
    {{- if $v.cache.existingSecret }}{{ $calls = append $calls $v.cache.at }}{{ end }}
    {{- if $v.broker.url }}{{ $calls = append $calls $v.broker.at }}{{ end }}
    {{- range $calls }}
    - {{ if .cidr }}to: [{ipBlock: {cidr: {{ .cidr }}}}]{{ else }}to:
        {{- include "microservice.peer" . | nindent 8 }}{{ end }}
      ports: [{port: {{ .port }}, protocol: TCP}]
    {{- end }}
    {{- range $v.webhooks }}
    - to:
        - ipBlock:
            cidr: 0.0.0.0/0
            except: [10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16]
        - ipBlock: {cidr: "2000::/3"}
        {{- range .allowNetworks }}
        - ipBlock: {cidr: {{ . | quote }}}
        {{- end }}
      ports: [{port: {{ include "microservice.portOf" .url }}, protocol: TCP}]
    {{- end }}
    {{- with $v.networkPolicy.apiServerPorts }}
    - ports:
        {{- range . }}
        - {port: {{ . }}, protocol: TCP}
        {{- end }}
    {{- end }}
    {{- if $v.tracing.endpoint }}
    - to:
        - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ $v.networkPolicy.monitoringNamespace }}}}
      ports: [{port: 4317, protocol: TCP}]
    {{- end }}
{{- end }}
{{- end -}}
