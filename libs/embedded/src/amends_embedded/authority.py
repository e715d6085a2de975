"""An authority of an installation's own, which makes certificates where nobody else does: a bare machine, kind, tests.

A certificate names its process twice: by one SPIFFE id, which servers check, and by DNS names and addresses, which
clients check. Elsewhere cert-manager or SPIRE writes the same three files.
"""

import ipaddress
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

TRUST_DOMAIN = "amends.local"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_LIVES = timedelta(days=365)
_CLOCKS_DIFFER = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Authority:
    """The key that signs, and the certificate that others trust."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls, name: str = "Amends", lives: timedelta = _LIVES) -> "Authority":
        """Return a new authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        certificate = (
            _begun(subject, subject, key, lives)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def kept(cls, folder: Path) -> "Authority":
        """Return the authority that a folder keeps, `ca.crt` and `ca.key`; make it when there is none."""
        with suppress(FileNotFoundError):
            key = load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise ValueError(f"{folder / 'ca.key'} is no key on an elliptic curve; remove it to have one made")
            return cls(x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes()), key)
        made = cls.make()
        _write(folder / "ca.crt", made.pem)
        _write(folder / "ca.key", _private(made.key))
        return made

    @property
    def pem(self) -> bytes:
        """The certificate, as others are given it."""
        return self.certificate.public_bytes(Encoding.PEM)

    def certify(
        self, folder: Path, identity: str, names: Iterable[str] = LOOPBACK, *, lives: timedelta = _LIVES
    ) -> None:
        """Write `tls.crt`, `tls.key` and `ca.crt` for a new key into `folder`; each file is replaced whole.

        `identity` is a SPIFFE id; `names` are DNS names and IP addresses under which the process is reached.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = [x509.UniformResourceIdentifier(identity), *map(_name, names)]
        certificate = (
            _begun(x509.Name([]), self.certificate.subject, key, lives)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .sign(self.key, hashes.SHA256())
        )
        _write(folder / "tls.key", _private(key))
        _write(folder / "tls.crt", certificate.public_bytes(Encoding.PEM))
        _write(folder / "ca.crt", self.pem)


def spiffe(namespace: str, account: str) -> str:
    """Return the SPIFFE id of a service account of this installation."""
    return f"spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/{account}"


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, lives: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, now + lives) - _CLOCKS_DIFFER)
        .not_valid_after(now + lives)
    )


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, text: bytes) -> None:
    """Replace a file whole, readable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(text)
    draft.replace(path)
