"""The schema of the payments database, applied in order when the service starts."""
