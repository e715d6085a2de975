"""The durable part of a run: Postgres tables, the group-commit writer, leases and claims."""
