"""The Kubernetes operator of Amends."""
