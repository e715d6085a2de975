"""The shop's shipping service."""
