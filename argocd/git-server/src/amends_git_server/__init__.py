"""A git server of one repository, for kind: pushes go in with a token, Argo CD reads and is told at once."""
