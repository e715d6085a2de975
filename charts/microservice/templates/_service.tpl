{{/* Headless: a client sees every pod, and spreads its calls. A ClusterIP would pin each channel to one of them. */}}
{{- define "microservice.service" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "microservice.metadata" .root | nindent 2 }}
spec:
  clusterIP: None
  selector:
    {{- include "microservice.selector" .root | nindent 4 }}
  ports:
    {{- if .v.grpc.enabled }}
    - {name: grpc, port: {{ .v.grpc.port }}, targetPort: grpc, appProtocol: grpc}
    {{- end }}
    - {name: http, port: {{ .v.http.port }}, targetPort: http}
    {{- if .v.web.port }}
    - {name: web, port: {{ .v.web.port }}, targetPort: web, appProtocol: http}
    {{- end }}
{{- $grpc := and .v.grpc.enabled .v.grpc.nodePort }}
{{- $web := and .v.web.port .v.web.nodePort }}
{{- if or $grpc $web }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ include "microservice.name" .root }}-outside
  namespace: {{ .root.Release.Namespace }}
  labels:  # not those of the service, which is found by them
    app.kubernetes.io/name: {{ include "microservice.name" .root }}-outside
    app.kubernetes.io/instance: {{ .root.Release.Name }}
spec:
  type: NodePort
  selector:
    {{- include "microservice.selector" .root | nindent 4 }}
  ports:
    {{- if $grpc }}
    - {name: grpc, port: {{ .v.grpc.port }}, targetPort: grpc, nodePort: {{ .v.grpc.nodePort }}, appProtocol: grpc}
    {{- end }}
    {{- if $web }}
    - {name: web, port: {{ .v.web.port }}, targetPort: web, nodePort: {{ .v.web.nodePort }}, appProtocol: http}
    {{- end }}
{{- end }}
{{- end -}}

{{- define "microservice.serviceaccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "microservice.metadata" .root | nindent 2 }}
  {{- with .v.serviceAccount.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end -}}

{{/* A Role in each namespace that is served; nothing is cluster-wide. */}}
{{- define "microservice.rbac" -}}
{{- range $namespace := .v.rbac.namespaces }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ include "microservice.name" $.root }}
  namespace: {{ $namespace }}
  labels:
    {{- include "microservice.labels" $.root | nindent 4 }}
rules:
  {{- toYaml $.v.rbac.rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ include "microservice.name" $.root }}
  namespace: {{ $namespace }}
  labels:
    {{- include "microservice.labels" $.root | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ include "microservice.name" $.root }}}
subjects:
  - {kind: ServiceAccount, name: {{ include "microservice.name" $.root }}, namespace: {{ $.root.Release.Namespace }}}
{{- end }}
{{- end -}}
