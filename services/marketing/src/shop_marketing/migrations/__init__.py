"""The schema of the marketing database, applied in order when the service starts."""
