"""Fixtures of the chassis' suite."""

import logging

import pytest
import structlog


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    """Leave the logging of the process as it was, whatever a test configures."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)
    structlog.reset_defaults()
