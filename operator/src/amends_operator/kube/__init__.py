"""What every part of the operator needs of Kubernetes: a client, objects, conditions, events."""
