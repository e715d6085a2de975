"""The failures that commands raise instead of printing: one sentence, one way to mend it, one exit code.

Raised by every module of the CLI; shown by `amends_cli.main`.
"""

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes of every command, for scripts."""

    OK = 0
    FAILED = 1
    """A finding, a request that the orchestrator refused, or an output that could not be written."""
    USAGE = 2
    """The command line was wrong; no call was made."""
    UNREACHABLE = 3
    """No orchestrator answers, or not in time."""
    COMPENSATED = 4
    """The run ended, and everything that it did was undone."""
    PARKED = 5
    """The run waits for a person."""
    RUNNING = 6
    """The run had not ended when the time to wait was over."""


class CliError(Exception):
    """A failure that ends the command; `main` shows it."""

    def __init__(self, message: str, hint: str = "", code: Exit = Exit.FAILED, *, reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.reason = reason
        """Of the orchestrator's refusal, e.g. SAGA_UNKNOWN; empty when it was none."""


def usage(message: str, hint: str = "") -> CliError:
    """Return a failure because the command line is wrong: exit code 2."""
    return CliError(message, hint, Exit.USAGE)
