"""From a commit to a cluster: which images a change touches, how they are built, and kind with Argo CD."""
