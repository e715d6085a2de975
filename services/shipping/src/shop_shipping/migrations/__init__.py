"""The schema of the shipping database, applied in order when the service starts."""
