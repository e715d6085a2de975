"""Signing keys: made, shown before they sign, and kept for as long as what they signed lives.

Every replica looks each `LOOK_EVERY`; whoever finds that a key is due makes it, in a transaction that one replica at a
time can have. Private halves are in the database, encrypted with a secret that is not.
"""

import asyncio
import hashlib
import hmac
import json
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import jwt
import structlog
from amends_chassis.database import Database
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shop_identity.tokens import Keyring, SigningKey

if TYPE_CHECKING:
    from amends_chassis.database import Connection

LOOK_EVERY = timedelta(seconds=30)
SHOWN_BEFORE = timedelta(minutes=10)
"""So long a key is public before it signs: whoever keeps a copy of the keys has it by then."""
KEPT_LONGER = timedelta(minutes=5)
"""So much longer than the tokens that it signed a key is public."""

_NONCE = 12
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('shop_identity.signing_key'))"
_log = structlog.get_logger(__name__)


class KeySecret:
    """The secret of the installation, and what is made of it."""

    def __init__(self, secret: str) -> None:
        """Derive one key for each use."""
        self._cipher = AESGCM(self._derived(secret, b"signing keys"))
        self._hiding = self._derived(secret, b"addresses")

    @staticmethod
    def _derived(secret: str, use: bytes) -> bytes:
        return HKDF(hashes.SHA256(), 32, salt=None, info=b"shop_identity " + use).derive(secret.encode())

    def seal(self, kid: str, private_key: ec.EllipticCurvePrivateKey) -> bytes:
        """Encrypt a private key under its name."""
        raw = private_key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        nonce = secrets.token_bytes(_NONCE)
        return nonce + self._cipher.encrypt(nonce, raw, kid.encode())

    def unseal(self, kid: str, sealed: bytes) -> ec.EllipticCurvePrivateKey | None:
        """Decrypt a private key; None when it was encrypted with another secret."""
        try:
            raw = self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], kid.encode())
        except InvalidTag:
            return None
        key = serialization.load_der_private_key(raw, password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key

    def hide(self, what: str, address: str) -> bytes:
        """Return what stands for an address where it must not be read; another for each use of it."""
        return hmac.digest(self._hiding, f"{what} {address}".encode(), "sha256")


class SigningKeys:
    """The keys of all replicas, as this one knows them."""

    def __init__(
        self,
        database: Database,
        secret: KeySecret,
        *,
        every: timedelta,
        tokens_live: timedelta,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Have another key sign each `every`; `tokens_live` says how long what a key signed is believed."""
        self._database = database
        self._secret = secret
        self._every = every
        self._kept = tokens_live + KEPT_LONGER
        self._clock = clock
        self.keyring = Keyring()

    async def run(self) -> None:
        """Look after the keys, for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY.total_seconds())
            await self.refresh()

    async def refresh(self) -> None:
        """Read the keys, make the next one if it is due, and forget those that nobody needs."""
        now = self._clock()
        async with self._database.transaction() as transaction:
            await transaction.execute(_LOCK)
            keys = await self._read(transaction)
            signs_from = next_key(keys, now, self._every)
            if signs_from is not None:
                keys.append(await self._make(transaction, signs_from))
            gone = outlived(keys, now, self._kept)
            await transaction.execute("DELETE FROM signing_key WHERE kid = ANY($1::text[])", list(gone))
        self.keyring = Keyring(tuple(key for key in keys if key.kid not in gone))
        for kid in gone:
            _log.info("key.forgotten", kid=kid)

    async def _read(self, connection: "Connection") -> list[SigningKey]:
        rows = await connection.fetch("SELECT kid, public_key, private_key, signs_from FROM signing_key")
        return [self._key(row) for row in rows]

    def _key(self, row: Any) -> SigningKey:
        public_key = serialization.load_der_public_key(row["public_key"])
        assert isinstance(public_key, ec.EllipticCurvePublicKey)
        private_key = self._secret.unseal(row["kid"], row["private_key"])
        if private_key is None:
            _log.error("key.of_another_secret", kid=row["kid"])
        return SigningKey(row["kid"], public_key, private_key, row["signs_from"])

    async def _make(self, connection: "Connection", signs_from: datetime) -> SigningKey:
        private_key = ec.generate_private_key(ec.SECP256R1())
        public_key = private_key.public_key()
        kid = thumbprint(public_key)
        await connection.execute(
            "INSERT INTO signing_key (kid, public_key, private_key, signs_from) VALUES ($1, $2, $3, $4)",
            kid,
            public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
            self._secret.seal(kid, private_key),
            signs_from,
        )
        _log.info("key.made", kid=kid, signs_from=signs_from.isoformat())
        return SigningKey(kid, public_key, private_key, signs_from)


def next_key(keys: Iterable[SigningKey], now: datetime, every: timedelta) -> datetime | None:
    """Return from when on a new key is to sign; None when none is due. Without a key that can sign it is now."""
    newest = max((key.signs_from for key in keys if key.private_key is not None), default=None)
    if newest is None:
        return now
    if newest + every > now + SHOWN_BEFORE:
        return None
    return max(newest + every, now + SHOWN_BEFORE)


def outlived(keys: Iterable[SigningKey], now: datetime, kept: timedelta) -> set[str]:
    """Return the names of keys whose successor has signed for so long that nothing that they signed lives."""
    starts = sorted(key.signs_from for key in keys if key.private_key is not None)
    succeeded = [start for start in starts if start + kept <= now]
    return {key.kid for key in keys if succeeded and key.signs_from < succeeded[-1]}


def thumbprint(public_key: ec.EllipticCurvePublicKey) -> str:
    """Return the name of a key: its thumbprint as in RFC 7638."""
    jwk = jwt.algorithms.ECAlgorithm.to_jwk(public_key, as_dict=True)
    named = json.dumps({name: jwk[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"), sort_keys=True)
    return urlsafe_b64encode(hashlib.sha256(named.encode()).digest()).rstrip(b"=").decode()
