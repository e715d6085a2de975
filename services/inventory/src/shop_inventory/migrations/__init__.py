"""The schema of the inventory database, applied in order when the service starts."""
