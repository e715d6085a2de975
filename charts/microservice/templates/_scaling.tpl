{{- define "microservice.hpa" -}}
{{- if .v.autoscaling.enabled -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "microservice.metadata" .root | nindent 2 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ include "microservice.name" .root }}}
  minReplicas: {{ .v.autoscaling.minReplicas }}
  maxReplicas: {{ .v.autoscaling.maxReplicas }}
  metrics:
    - type: Resource
      resource: {name: cpu, target: {type: Utilization, averageUtilization: {{ .v.autoscaling.cpuPercent }}}}
  behavior:
    scaleUp:
      stabilizationWindowSeconds: 0
      policies: [{type: Percent, value: 100, periodSeconds: 30}]
    scaleDown:  # slowly: connections move, and runs are handed over
      stabilizationWindowSeconds: 300
      policies: [{type: Pods, value: 1, periodSeconds: 60}]
{{- end }}
{{- end -}}

{{- define "microservice.pdb" -}}
{{- $least := ternary (int .v.autoscaling.minReplicas) (int .v.replicas) .v.autoscaling.enabled -}}
{{- if gt $least 1 -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "microservice.metadata" .root | nindent 2 }}
spec:
  maxUnavailable: {{ .v.podDisruptionBudget.maxUnavailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "microservice.selector" .root | nindent 6 }}
{{- end }}
{{- end -}}
