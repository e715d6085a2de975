"""The schema of the search database, applied in order when the service starts."""
