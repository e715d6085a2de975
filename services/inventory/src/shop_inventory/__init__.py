"""The shop's inventory service."""
