"""The tools with which the operator speaks to Kubernetes: a client, objects, conditions, events."""
