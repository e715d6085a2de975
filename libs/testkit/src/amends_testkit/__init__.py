"""Builders, fakes and fixtures for real servers. Only tests import it."""
