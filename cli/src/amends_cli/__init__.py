"""The command line of Amends, also kubectl-amends."""
