{{/* helm test: a pod of the same image asks the service for its health, as a client would. */}}
{{- define "microservice.test" -}}
{{- $name := include "microservice.name" .root -}}
apiVersion: v1
kind: Pod
metadata:
  name: {{ $name }}-test
  namespace: {{ .root.Release.Namespace }}
  labels: {amends.dev/test-of: {{ $name }}}
  annotations:
    helm.sh/hook: test
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  enableServiceLinks: false
  securityContext:
    {{- include "microservice.podSecurity" .root | nindent 4 }}
  containers:
    - name: health
      image: {{ include "microservice.image" .v.image }}
      imagePullPolicy: {{ .v.image.pullPolicy }}
      {{- if and .v.grpc.enabled (not (include "microservice.tlsSecret" .)) }}
      command: [python, -m, amends_chassis.ask, {{ printf "dns:///%s.%s.svc.cluster.local:%d" $name .root.Release.Namespace (int .v.grpc.port) | quote }}]
      {{- else }}
      command: [python, -c, {{ printf "import urllib.request as r; r.urlopen('http://%s.%s.svc.cluster.local:%d/readyz', timeout=10)" $name .root.Release.Namespace (int .v.http.port) | quote }}]
      {{- end }}
      resources: {requests: {cpu: 10m, memory: 64Mi}, limits: {memory: 64Mi}}
      securityContext:
        {{- include "microservice.containerSecurity" .root | nindent 8 }}
{{- end -}}
