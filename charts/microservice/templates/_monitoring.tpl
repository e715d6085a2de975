{{- define "microservice.alert" }}
- alert: {{ .alert }}
  expr: {{ .expr | quote }}
  for: {{ .for | default "5m" }}
  labels: {severity: {{ .severity | default "warning" }}}
  annotations: {summary: {{ .summary | quote }}}
{{- end -}}

{{/* For the Prometheus operator. Alerts of a deployable's own are in its values. */}}
{{- define "microservice.monitoring" -}}
{{- if .v.monitoring.enabled -}}
{{- $name := include "microservice.name" .root -}}
{{- $mine := printf "namespace=\"%s\",job=\"%s\"" .root.Release.Namespace $name -}}
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  {{- include "microservice.metadata" .root | nindent 2 }}
    {{- with .v.monitoring.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  jobLabel: app.kubernetes.io/name
  selector:
    matchLabels:
      {{- include "microservice.selector" .root | nindent 6 }}
  endpoints:
    - {port: http, interval: {{ .v.monitoring.interval }}}
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  {{- include "microservice.metadata" .root | nindent 2 }}
    {{- with .v.monitoring.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  groups:
    - name: {{ $name }}
      rules:
        {{- include "microservice.alert" (dict "alert" "Absent" "severity" "critical" "summary" (printf "No pod of %s answers Prometheus." $name)
              "expr" (printf "absent(up{%s} == 1)" $mine)) | nindent 8 }}
        {{- if .v.grpc.enabled }}
        {{- $failed := "code=~\"UNKNOWN|INTERNAL|UNAVAILABLE|DATA_LOSS|DEADLINE_EXCEEDED\"" }}
        {{- include "microservice.alert" (dict "alert" "CallsFail" "severity" "critical" "summary" (printf "More than 5%% of the calls to %s fail by its fault." $name)
              "expr" (printf "sum(rate(grpc_server_handled_total{%s,%s}[5m])) / sum(rate(grpc_server_handled_total{%s}[5m])) > 0.05" $mine $failed $mine)) | nindent 8 }}
        {{- include "microservice.alert" (dict "alert" "CallsSlow" "summary" (printf "One call in a hundred to %s takes longer than a second." $name)
              "expr" (printf "histogram_quantile(0.99, sum by (le) (rate(grpc_server_handling_seconds_bucket{%s}[5m]))) > 1" $mine)) | nindent 8 }}
        {{- end }}
        {{- if .v.broker.url }}
        {{- $events := printf "`kubectl amends events %%s --service %s/%s`" .root.Release.Namespace $name }}
        {{- include "microservice.alert" (dict "alert" "OutboxWaits" "for" "1m" "summary" (printf "Events of %s do not reach the broker. %s shows them." $name (printf $events "outbox"))
              "expr" (printf "max(outbox_oldest_seconds{%s}) > 30" $mine)) | nindent 8 }}
        {{- include "microservice.alert" (dict "alert" "EventsLate" "for" "1m" "summary" (printf "%s has not been at the end of a topic for minutes. %s shows where it is." $name (printf $events "lag"))
              "expr" (printf "max(min_over_time(inbox_lag_events{%s}[2m])) > 0" $mine)) | nindent 8 }}
        {{- include "microservice.alert" (dict "alert" "EventsParked" "for" "1m" "summary" (printf "Events wait for a person at %s. %s shows them." $name (printf $events "parked list"))
              "expr" (printf "max(inbox_keys_blocked{%s}) > 0" $mine)) | nindent 8 }}
        {{- include "microservice.alert" (dict "alert" "PositionLost" "for" "1m" "severity" "critical" "summary" (printf "The log does not go on where %s has read to: it stands still. %s shows where." $name (printf $events "lag"))
              "expr" (printf "max(inbox_position_lost{%s}) > 0" $mine)) | nindent 8 }}
        {{- end }}
        {{- range .v.monitoring.alerts }}
        {{- include "microservice.alert" . | nindent 8 }}
        {{- end }}
{{- end }}
{{- end -}}
