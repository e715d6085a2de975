"""The schema of the reporting database, applied in order when the service starts."""
