{{/* The Secret with the files of mutual TLS; empty where calls are plain text. */}}
{{- define "microservice.tlsSecret" -}}
{{- if .v.tls.existingSecret -}}
{{- .v.tls.existingSecret -}}
{{- else if .v.tls.issuer.name -}}
{{- printf "%s-tls" (include "microservice.name" .root) -}}
{{- end -}}
{{- end -}}

{{/* Who calls, as a SPIFFE id: the service account of a deployable has its name. */}}
{{- define "microservice.spiffe" -}}
{{- printf "spiffe://%s/ns/%s/sa/%s" .trustDomain .namespace .name -}}
{{- end -}}

{{/* Has cert-manager write the Secret. */}}
{{- define "microservice.certificate" -}}
{{- if and .v.tls.issuer.name (not .v.tls.existingSecret) -}}
{{- $name := include "microservice.name" .root -}}
{{- $namespace := .root.Release.Namespace -}}
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  {{- include "microservice.metadata" .root | nindent 2 }}
spec:
  secretName: {{ include "microservice.tlsSecret" . }}
  issuerRef: {name: {{ .v.tls.issuer.name }}, kind: {{ .v.tls.issuer.kind }}, group: cert-manager.io}
  duration: {{ .v.tls.duration }}
  renewBefore: {{ .v.tls.renewBefore }}
  privateKey: {algorithm: ECDSA, size: 256, rotationPolicy: Always}
  usages: [digital signature, server auth, client auth]
  uris: [{{ include "microservice.spiffe" (dict "trustDomain" .v.tls.trustDomain "namespace" $namespace "name" $name) | quote }}]
  dnsNames:
    {{- range list "" (printf ".%s" $namespace) (printf ".%s.svc" $namespace) (printf ".%s.svc.cluster.local" $namespace) }}
    - {{ $name }}{{ . }}
    {{- end }}
    - localhost
  ipAddresses: [127.0.0.1, "::1"]
{{- end -}}
{{- end -}}

{{/* The ConfigMap with the rules of who may call what, of nobody without `access`; empty where nothing can be called, or nobody is known. */}}
{{- define "microservice.accessMap" -}}
{{- if and .v.grpc.enabled (include "microservice.tlsSecret" .) -}}
{{- printf "%s-access" (include "microservice.name" .root) -}}
{{- end -}}
{{- end -}}

{{/* The ConfigMap with the roles in namespaces; empty where none are given, or nobody is known. */}}
{{- define "microservice.rolesMap" -}}
{{- if and .v.roles (include "microservice.tlsSecret" .) -}}
{{- printf "%s-roles" (include "microservice.name" .root) -}}
{{- end -}}
{{- end -}}

{{/* Who has which roles: the file of AMENDS_ROLES. */}}
{{- define "microservice.roles" -}}
{{- if include "microservice.rolesMap" . -}}
{{- $bindings := list -}}
{{- range .v.roles -}}
{{- $subjects := list -}}
{{- range .subjects -}}
{{- if kindIs "string" . }}{{ $subjects = append $subjects . }}
{{- else }}{{ $subjects = append $subjects (include "microservice.spiffe" (dict "trustDomain" $.v.tls.trustDomain "namespace" .namespace "name" .name)) }}{{ end -}}
{{- end -}}
{{- $bindings = append $bindings (dict "subjects" $subjects "namespaces" .namespaces "roles" .roles) -}}
{{- end -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "microservice.rolesMap" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "microservice.labels" .root | nindent 4 }}
data:
  roles.json: |
    {{- dict "bindings" $bindings | toPrettyJson | nindent 4 }}
{{- end -}}
{{- end -}}

{{/* Who may call what: the file of AMENDS_ACCESS. */}}
{{- define "microservice.access" -}}
{{- if include "microservice.accessMap" . -}}
{{- $rules := list -}}
{{- range .v.access -}}
{{- $who := include "microservice.spiffe" (dict "trustDomain" $.v.tls.trustDomain "namespace" .from.namespace "name" .from.name) -}}
{{- $methods := list -}}
{{- range .methods }}{{ $methods = append $methods (printf "/%s" .) }}{{ end -}}
{{- $rules = append $rules (dict "identities" (list $who) "methods" $methods) -}}
{{- end -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "microservice.accessMap" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "microservice.labels" .root | nindent 4 }}
data:
  access.json: |
    {{- dict "rules" $rules | toPrettyJson | nindent 4 }}
{{- end -}}
{{- end -}}
