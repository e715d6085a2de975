"""Webhooks: events sent over HTTPS to destinations of the administrator, signed, in order, at least once."""
