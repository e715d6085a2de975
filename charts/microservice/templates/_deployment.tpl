{{/* The chart's own variables, then those of `env` and `secretEnv`, which win: one name is never there twice. */}}
{{- define "microservice.env" -}}
{{- $v := .v -}}
{{- $own := list (list "AMENDS_HOST" "[::]") (list "AMENDS_METRICS_PORT" $v.http.port) -}}
{{- if $v.grpc.enabled -}}
{{- $own = append $own (list "AMENDS_PORT" $v.grpc.port) -}}
{{- $own = append $own (list "AMENDS_HEALTH_PORT" $v.grpc.healthPort) -}}
{{- $own = append $own (list "AMENDS_DRAIN" (printf "%ds" (int $v.drain.seconds))) -}}
{{- $own = append $own (list "AMENDS_REFLECTION" $v.reflection) -}}
{{- with $v.grpc.maxConnectionAge }}{{ $own = append $own (list "AMENDS_MAX_CONNECTION_AGE" .) }}{{ end -}}
{{- end -}}
{{- if $v.database.enabled -}}
{{- $own = append $own (list "AMENDS_DATABASE_URL_FILE" "/etc/amends/database/url") -}}
{{- end -}}
{{- if $v.cache.existingSecret -}}
{{- $own = append $own (list "AMENDS_CACHE_URL_FILE" "/etc/amends/cache/url") -}}
{{- end -}}
{{- with $v.broker.url }}{{ $own = append $own (list "AMENDS_BROKER" .) }}{{ end -}}
{{- if $v.retryPolicies.configMap -}}
{{- $own = append $own (list "AMENDS_RETRY_POLICIES" "/etc/amends/policies/policies.json") -}}
{{- end -}}
{{- if include "microservice.tlsSecret" . -}}
{{- $own = append $own (list "AMENDS_TLS_DIR" "/etc/amends/tls") -}}
{{- end -}}
{{- if include "microservice.accessMap" . -}}
{{- $own = append $own (list "AMENDS_ACCESS" "/etc/amends/access/access.json") -}}
{{- end -}}
{{- if include "microservice.rolesMap" . -}}
{{- $own = append $own (list "AMENDS_ROLES" "/etc/amends/roles/roles.json") -}}
{{- end -}}
{{- if $v.webhooks -}}
{{- $own = append $own (list "AMENDS_WEBHOOKS" "/etc/amends/webhooks/webhooks.json") -}}
{{- end -}}
{{- with $v.tracing.endpoint -}}
{{- $own = append $own (list "AMENDS_OTLP_ENDPOINT" .) -}}
{{- $own = append $own (list "AMENDS_TRACE_RATIO" $v.tracing.ratio) -}}
{{- end -}}
{{- range $name := list "AMENDS_PORT" "AMENDS_HEALTH_PORT" "AMENDS_METRICS_PORT" -}}
{{- if or (hasKey $v.env $name) (hasKey $v.secretEnv $name) -}}
{{- fail (printf "env.%s: the Service and the probes go by grpc.port, grpc.healthPort and http.port, so set those" $name) -}}
{{- end -}}
{{- end -}}
{{- range $pair := $own }}
{{- $name := first $pair }}
{{- if not (or (hasKey $v.env $name) (hasKey $v.secretEnv $name)) }}
- {name: {{ $name }}, value: {{ include "microservice.text" (last $pair) | quote }}}
{{- end }}
{{- end }}
{{- range $name, $value := $v.env }}
{{- if hasKey $v.secretEnv $name }}{{ fail (printf "%s is in env and in secretEnv: leave one out" $name) }}{{ end }}
- {name: {{ $name }}, value: {{ include "microservice.text" $value | quote }}}
{{- end }}
{{- range $name, $from := $v.secretEnv }}
- {name: {{ $name }}, valueFrom: {secretKeyRef: {name: {{ $from.secret }}, key: {{ $from.key }}}}}
{{- end }}
{{- end -}}

{{- define "microservice.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if .v.database.enabled }}
- {name: database, mountPath: /etc/amends/database, readOnly: true}
{{- end }}
{{- if .v.cache.existingSecret }}
- {name: cache, mountPath: /etc/amends/cache, readOnly: true}
{{- end }}
{{- if .v.retryPolicies.configMap }}
- {name: policies, mountPath: /etc/amends/policies, readOnly: true}
{{- end }}
{{- if include "microservice.tlsSecret" . }}
- {name: tls, mountPath: /etc/amends/tls, readOnly: true}
{{- end }}
{{- if include "microservice.accessMap" . }}
- {name: access, mountPath: /etc/amends/access, readOnly: true}
{{- end }}
{{- if include "microservice.rolesMap" . }}
- {name: roles, mountPath: /etc/amends/roles, readOnly: true}
{{- end }}
{{- if .v.webhooks }}
- {name: webhooks, mountPath: /etc/amends/webhooks, readOnly: true}
- {name: webhook-files, mountPath: /etc/amends/webhook-files, readOnly: true}
{{- end }}
{{- end -}}

{{/* The kubelet shows no certificate: the port for health has no TLS. */}}
{{- define "microservice.probes" -}}
{{- if .v.grpc.enabled }}
startupProbe: {grpc: {port: {{ .v.grpc.healthPort }}, service: liveness}, periodSeconds: 1, failureThreshold: 60}
livenessProbe: {grpc: {port: {{ .v.grpc.healthPort }}, service: liveness}, periodSeconds: 10, failureThreshold: 3, timeoutSeconds: 3}
readinessProbe: {grpc: {port: {{ .v.grpc.healthPort }}, service: readiness}, periodSeconds: 2, failureThreshold: 2, timeoutSeconds: 2}
{{- else }}
startupProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1, failureThreshold: 60}
livenessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 10, failureThreshold: 3, timeoutSeconds: 3}
readinessProbe: {httpGet: {path: /readyz, port: http}, periodSeconds: 2, failureThreshold: 2, timeoutSeconds: 2}
{{- end }}
{{- end -}}

{{- define "microservice.deployment" -}}
{{- $v := .v -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "microservice.metadata" .root | nindent 2 }}
spec:
  {{- if not $v.autoscaling.enabled }}
  replicas: {{ $v.replicas }}
  {{- end }}
  revisionHistoryLimit: 3
  strategy:
    type: {{ $v.strategy }}
    {{- if eq $v.strategy "RollingUpdate" }}
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
    {{- end }}
  selector:
    matchLabels:
      {{- include "microservice.selector" .root | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "microservice.labels" .root | nindent 8 }}
      {{- with $v.podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: {{ include "microservice.name" .root }}
      automountServiceAccountToken: {{ $v.serviceAccount.token }}
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ add $v.drain.beforeSeconds $v.drain.seconds 10 }}
      {{- with $v.imagePullSecrets }}
      imagePullSecrets:
        {{- range . }}
        - {name: {{ . }}}
        {{- end }}
      {{- end }}
      securityContext:
        {{- include "microservice.podSecurity" .root | nindent 8 }}
      {{- if and $v.database.enabled $v.database.migrate }}
      initContainers:
        - name: migrate
          image: {{ include "microservice.image" $v.image }}
          imagePullPolicy: {{ $v.image.pullPolicy }}
          args: [migrate]
          env:
            {{- include "microservice.env" . | trim | nindent 12 }}
            {{- if $v.database.migrationsSecret }}
            - {name: AMENDS_MIGRATIONS_DATABASE_URL_FILE, value: /etc/amends/migrations/url}
            {{- end }}
          resources:
            {{- toYaml $v.resources | nindent 12 }}
          securityContext:
            {{- include "microservice.containerSecurity" .root | nindent 12 }}
          volumeMounts:
            {{- include "microservice.mounts" . | nindent 12 }}
            {{- if $v.database.migrationsSecret }}
            - {name: migrations, mountPath: /etc/amends/migrations, readOnly: true}
            {{- end }}
      {{- end }}
      containers:
        - name: {{ include "microservice.name" .root }}
          image: {{ include "microservice.image" $v.image }}
          imagePullPolicy: {{ $v.image.pullPolicy }}
          env:
            {{- include "microservice.env" . | trim | nindent 12 }}
          ports:
            {{- if $v.grpc.enabled }}
            - {name: grpc, containerPort: {{ $v.grpc.port }}}
            - {name: health, containerPort: {{ $v.grpc.healthPort }}}
            {{- end }}
            - {name: http, containerPort: {{ $v.http.port }}}
            {{- if $v.web.port }}
            - {name: web, containerPort: {{ $v.web.port }}}
            {{- end }}
          {{- include "microservice.probes" . | nindent 10 }}
          lifecycle: {preStop: {sleep: {seconds: {{ $v.drain.beforeSeconds }}}}}
          resources:
            {{- toYaml $v.resources | nindent 12 }}
          securityContext:
            {{- include "microservice.containerSecurity" .root | nindent 12 }}
          volumeMounts:
            {{- include "microservice.mounts" . | nindent 12 }}
      volumes:
        - {name: tmp, emptyDir: {sizeLimit: 64Mi}}
        {{- if $v.database.enabled }}
        - name: database
          secret:
            secretName: {{ required "database.existingSecret must name the Secret with the database's URL" $v.database.existingSecret }}
            defaultMode: 0440
            items: [{key: {{ $v.database.key }}, path: url}]
        {{- end }}
        {{- if and $v.database.enabled $v.database.migrate $v.database.migrationsSecret }}
        - name: migrations
          secret:
            secretName: {{ $v.database.migrationsSecret }}
            defaultMode: 0440
            items: [{key: {{ $v.database.key }}, path: url}]
        {{- end }}
        {{- with $v.cache.existingSecret }}
        - {name: cache, secret: {secretName: {{ . }}, defaultMode: 0440, items: [{key: {{ $v.cache.key }}, path: url}]}}
        {{- end }}
        {{- if $v.retryPolicies.configMap }}
        - {name: policies, configMap: {name: {{ $v.retryPolicies.configMap }}, optional: true}}
        {{- end }}
        {{- with include "microservice.tlsSecret" . }}
        - {name: tls, secret: {secretName: {{ . }}, defaultMode: 0440}}
        {{- end }}
        {{- with include "microservice.accessMap" . }}
        - {name: access, configMap: {name: {{ . }}}}
        {{- end }}
        {{- with include "microservice.rolesMap" . }}
        - {name: roles, configMap: {name: {{ . }}}}
        {{- end }}
        {{- if $v.webhooks }}
        - {name: webhooks, configMap: {name: {{ include "microservice.webhooksMap" . }}}}
        - name: webhook-files
          projected:
            defaultMode: 0440
            sources:
              {{- include "microservice.webhookFiles" . | trim | nindent 14 }}
        {{- end }}
      topologySpreadConstraints:
        {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
        - topologyKey: {{ . }}
          maxSkew: 1
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "microservice.selector" $.root | nindent 14 }}
        {{- end }}
      {{- with $v.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $v.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end -}}
