"""The certificate of this process, its key and the authorities it trusts: three files that anybody may renew.

A folder holds `tls.crt` (the certificate and those between it and the authority), `tls.key` and `ca.crt`, as a mounted
Secret of cert-manager or SPIRE does. What is in force is read again when the files change, and a set of files that does
not fit together is refused: what was good before stays. Used by the server, and by `dial` for clients.
"""

import asyncio
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from amends_chassis.followed import Followed, stamp

_log = structlog.get_logger(__name__)

SPIFFE = "spiffe://"
CERTIFICATE, KEY, AUTHORITIES = "tls.crt", "tls.key", "ca.crt"
RENEWED, REFUSED = "certificates.renewed", "certificates.refused"
LOOK_AT_LEAST_EVERY = timedelta(seconds=5)

_ENDED = 10
"""OpenSSL's number for a certificate whose time is over."""


class CertificateError(ValueError):
    """Files that cannot be used: which one, and why."""


@dataclass(frozen=True, slots=True)
class Material:
    """What three files said at one moment; all of it fits together."""

    chain: bytes
    key: bytes
    authorities: bytes
    identity: str
    """The one SPIFFE id of the certificate, e.g. `spiffe://amends.local/ns/shop/sa/orders`."""
    not_after: datetime

    def for_server(self) -> grpc.ServerCertificateConfiguration:
        """Return the certificate as a server shows it."""
        return grpc.ssl_server_certificate_configuration([(self.key, self.chain)], root_certificates=self.authorities)

    def for_client(self) -> grpc.ChannelCredentials:
        """Return the certificate as a client shows it."""
        return grpc.ssl_channel_credentials(self.authorities, self.key, self.chain)


class Certificates(Followed[Material]):
    """The material that is in force now, read from a folder."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the folder. Raises CertificateError when its files cannot be used."""
        self._folder = folder
        self._outcomes: Counter | None = None
        super().__init__(clock)

    @classmethod
    def shown_in(cls, registry: CollectorRegistry, folder: Path) -> "Certificates":
        """Return the certificates of a folder, with their metrics in `registry`. Raises CertificateError."""
        found = cls(folder)
        found.expose(registry)
        return found

    def expose(self, registry: CollectorRegistry) -> None:
        """Show in `registry` when the certificate ends, and how often its files were taken and refused."""
        ends = Gauge(
            "amends_certificate_not_after_timestamp_seconds",
            "When the certificate in force ends, in seconds since 1970.",
            registry=registry,
        )
        ends.set_function(lambda: self.current.not_after.timestamp())
        self._outcomes = Counter(
            "amends_certificate_renewals", "Changes of the certificate's files.", ["outcome"], registry=registry
        )
        for outcome in (RENEWED, REFUSED):
            self._outcomes.labels(outcome.partition(".")[2])

    async def watch(self) -> None:
        """Look at the files for ever, so that a process without calls tells of a change too."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_AT_LEAST_EVERY.total_seconds())

    def server_credentials(self) -> grpc.ServerCredentials:
        """Return credentials that ask each client for a certificate and follow the files without a restart."""
        shown = self.current

        def renewed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal shown
            if self.current is shown:
                return None
            shown = self.current
            return shown.for_server()

        first = shown.for_server()
        # A fetcher that returns None leaves the configuration as it is, which the stubs do not know.
        return grpc.dynamic_ssl_server_credentials(first, renewed, require_client_authentication=True)  # type: ignore[arg-type]

    def _seen(self) -> object:
        return _state(self._folder)

    def _read(self) -> Material:
        return read(self._folder)

    def _renewed(self) -> None:
        self._say(RENEWED)
        _log.info(RENEWED, identity=self._current.identity, not_after=self._current.not_after.isoformat())

    def _refused(self, error: ValueError) -> None:
        self._say(REFUSED)
        _log.error(REFUSED, folder=str(self._folder), error=str(error), in_force_until=self._current.not_after)

    def _say(self, outcome: str) -> None:
        if self._outcomes is not None:
            self._outcomes.labels(outcome.partition(".")[2]).inc()


def read(folder: Path) -> Material:
    """Read the three files and see that they fit together. Raises CertificateError.

    They are tried as both sides of a handshake in memory, so that whatever TLS itself would refuse is refused here.
    """
    while True:
        before = _state(folder)
        chain, key, authorities = (_read(folder / name) for name in (CERTIFICATE, KEY, AUTHORITIES))
        shown = _handshake(folder)
        if _state(folder) == before:  # else they changed meanwhile, and what was tried is not what was read
            not_after = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(shown["notAfter"])), UTC)
            return Material(chain, key, authorities, _identity(folder / CERTIFICATE, shown), not_after)


def _handshake(folder: Path) -> dict[str, Any]:
    """Return what a peer that trusts the authorities is shown of the certificate. Raises CertificateError."""
    for name in (CERTIFICATE, AUTHORITIES):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(folder / name)
        except (ssl.SSLError, OSError) as error:
            raise CertificateError(f"{folder / name} holds no certificate in PEM: {error}") from error
    sides = (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    for side in sides:
        side.check_hostname = False
        side.verify_mode = ssl.CERT_REQUIRED
        _load(side, folder)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = sides[0].wrap_bio(to_server, to_client, server_side=True)
    client = sides[1].wrap_bio(to_client, to_server)
    waiting = [client, server]
    try:
        while waiting:
            for side_of_it in list(waiting):
                with suppress(ssl.SSLWantReadError):
                    side_of_it.do_handshake()
                    waiting.remove(side_of_it)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code == _ENDED:
            raise CertificateError(f"{folder / CERTIFICATE} has ended: {error.verify_message}") from error
        raise CertificateError(
            f"{folder / CERTIFICATE} is not vouched for by {folder / AUTHORITIES}: {error.verify_message}"
        ) from error
    except ssl.SSLError as error:
        raise CertificateError(f"{folder / CERTIFICATE} cannot be used: {error}") from error
    return client.getpeercert() or {}


def _load(side: ssl.SSLContext, folder: Path) -> None:
    side.load_verify_locations(folder / AUTHORITIES)
    try:
        side.load_cert_chain(folder / CERTIFICATE, folder / KEY, password="")
    except (ssl.SSLError, OSError, ValueError) as error:
        if "KEY_VALUES_MISMATCH" in str(error):
            raise CertificateError(f"{folder / KEY} is not the key of {folder / CERTIFICATE}") from error
        raise CertificateError(f"{folder / KEY} is no private key in PEM without a password: {error}") from error


def _identity(path: Path, shown: dict[str, Any]) -> str:
    found = [name for kind, name in shown.get("subjectAltName", ()) if kind == "URI"]
    if len(found) != 1 or not found[0].startswith(SPIFFE):
        raise CertificateError(
            f"{path} must have exactly one URI, spiffe://TRUST-DOMAIN/PATH; it has {found or 'none'}"
        )
    return str(found[0])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror}") from error


def _state(folder: Path) -> list[tuple[int, int, int] | None]:
    """Return what tells one set of files from the next; Kubernetes changes them by a link to another folder."""
    return [stamp(folder / name) for name in (CERTIFICATE, KEY, AUTHORITIES)]
