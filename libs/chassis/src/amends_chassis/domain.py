"""The base of every domain's rules: refusals that have a reason, and names that anybody can repeat.

Free of gRPC and SQL, as the rules are. `errors.answers` turns a refusal into what a gRPC caller is told.
"""

import re
from typing import ClassVar

_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}")


class RefusedError(Exception):
    """The rules say no. `reason` is stable, for programs; the text is for people."""

    reason: ClassVar[str]


class IdentifierInvalidError(RefusedError):
    """A name has a form that people cannot repeat."""

    reason = "IDENTIFIER_INVALID"


def identifier(value: str, what: str) -> str:
    """Return `value` if it can name something (1 to 100 plain characters). Raises IdentifierInvalidError."""
    if not _IDENTIFIER.fullmatch(value):
        raise IdentifierInvalidError(
            f"{what} must have 1 to 100 letters, digits or ._:/- and begin with a letter or digit"
        )
    return value
