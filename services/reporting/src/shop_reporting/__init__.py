"""The shop's reporting service."""
