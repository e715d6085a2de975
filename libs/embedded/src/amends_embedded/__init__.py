"""A real Postgres without a container engine or root, for development, the demo and tests."""
