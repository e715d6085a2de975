"""The certificates that this program shows and trusts, for every channel that a command opens."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from amends_cli.failure import usage

if TYPE_CHECKING:
    from amends_chassis.certificates import Certificates

VARIABLE = "AMENDS_TLS_DIR"
FILES = "a folder with tls.crt, tls.key and ca.crt"


def own_certificates() -> "Certificates | None":
    """Return what the folder in AMENDS_TLS_DIR holds; None: plain text. Raises CliError for files of no use."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        return None
    from amends_chassis.certificates import CertificateError, Certificates

    try:
        return Certificates(Path(folder))
    except CertificateError as error:
        raise usage(str(error), f"{VARIABLE} names {FILES}.") from None
