"""The schema of the customers database, applied in order when the service starts."""
