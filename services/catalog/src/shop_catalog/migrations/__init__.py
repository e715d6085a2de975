"""The schema of the catalog database, applied in order when the service starts."""
