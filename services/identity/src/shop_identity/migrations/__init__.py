"""The schema of the identity database, applied in order when the service starts."""
