"""The schema of the orders database, applied in order when the service starts."""
