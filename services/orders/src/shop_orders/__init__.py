"""The shop's orders service."""
