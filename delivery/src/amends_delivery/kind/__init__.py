"""The shop in a kind cluster, deployed by Argo CD from a git server in the same cluster."""
