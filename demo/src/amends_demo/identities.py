"""Certificates for a shop on this machine: an authority of its own, and a folder of files for each process.

Elsewhere somebody else writes the same files: see docs/how-to/certificates.md.
"""

from pathlib import Path

from amends_chassis.certificates import Certificates
from amends_embedded.authority import Authority, spiffe

PERSON = "you"
"""The identity of people who use `grpcurl` or `amends` on this machine, and of the demo itself."""


class Identities:
    """The folders of certificates below a folder. What is there is kept, so that a restarted process is the same."""

    def __init__(self, root: Path) -> None:
        """Make the authority when there is none."""
        self._root = root
        self._authority = Authority.kept(root / "authority")

    def folder(self, name: str) -> Path:
        """Return the folder of a process; its certificate is made when it is asked for first."""
        folder = self._root / name
        if not (folder / "tls.crt").exists():
            self.renew(name)
        return folder

    def renew(self, name: str) -> None:
        """Write a new certificate for a process."""
        account = "orchestrator" if name.startswith("orchestrator-") else name
        namespace = "amends" if account in ("monitor", "orchestrator") else "shop"
        self._authority.certify(self._root / name, spiffe(namespace, account))

    def of_person(self) -> Certificates:
        """Return the certificates of people who look at the shop."""
        return Certificates(self.folder(PERSON))
