"""Which access tokens are believed."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from amends_chassis.tokens import LEEWAY
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from shop_identity.domain import TokenInvalid
from shop_identity.keys import thumbprint
from shop_identity.tokens import AccessTokens, Keyring, SigningKey

LIFETIME = timedelta(minutes=10)


def now():
    return datetime.now(UTC).replace(microsecond=0)


def key(age=timedelta(days=1)):
    private_key = ec.generate_private_key(ec.SECP256R1())
    return SigningKey(thumbprint(private_key.public_key()), private_key.public_key(), private_key, now() - age)


KEY, OTHER = key(), key()
KEYRING = Keyring((KEY,))


def tokens(keyring=KEYRING, issuer="https://identity", audience="shop"):
    return AccessTokens(issuer, audience, LIFETIME, lambda: keyring)


def claims(**changes):
    said = {
        "iss": "https://identity",
        "aud": "shop",
        "sub": "acc-1",
        "iat": now(),
        "exp": now() + LIFETIME,
        "auth_time": int(now().timestamp()),
        "jti": "1",
    } | changes
    return {name: value for name, value in said.items() if value is not None}


def signed(said=None, with_key=KEY, algorithm="ES256", **header):
    headers = {"kid": KEY.kid, "typ": "at+jwt"} | header
    return jwt.encode(said or claims(), with_key.private_key, algorithm, headers=headers)


def unsigned(algorithm, signature=lambda signed: b""):
    """A token that no library would make."""

    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value, default=lambda at: int(at.timestamp())).encode()).rstrip(b"=")

    body = part({"alg": algorithm, "kid": KEY.kid, "typ": "at+jwt"}) + b"." + part(claims())
    return (body + b"." + base64.urlsafe_b64encode(signature(body)).rstrip(b"=")).decode()


def with_the_public_key_as_secret(body):
    pem = KEY.public_key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hmac.digest(pem, body, hashlib.sha256)


LATER = LEEWAY + timedelta(seconds=5)
ATTACKS = {
    "nothing": lambda: "",
    "no token": lambda: "a.b.c",
    "far too long": lambda: signed() + "x" * 5000,
    "signed by another key": lambda: signed(with_key=OTHER),
    "of a key that is not there": lambda: signed(with_key=OTHER, kid=OTHER.kid),
    "a path for a key": lambda: signed(kid="../../etc/passwd"),
    "no name of a key": lambda: signed(kid=""),
    "no algorithm": lambda: unsigned("none"),
    "the public key as a secret": lambda: unsigned("HS256", with_the_public_key_as_secret),
    "of another issuer": lambda: signed(claims(iss="https://elsewhere")),
    "for somebody else": lambda: signed(claims(aud="another shop")),
    "expired": lambda: signed(claims(exp=now() - LATER)),
    "not valid yet": lambda: signed(claims(nbf=now() + LATER)),
    "given out later": lambda: signed(claims(iat=now() + LATER)),
    "without an end": lambda: signed(claims(exp=None)),
    "of nobody": lambda: signed(claims(sub=None)),
    "of another kind": lambda: signed(typ="JWT"),
    "changed": lambda: signed().replace(".", ".e", 1),
}


def test_a_token_says_whom_it_was_given_to_and_for_how_long():
    signed_in_at, before = now() - timedelta(hours=1), now()
    token = tokens().sign("acc-1", signed_in_at, ("staff",))
    assert before <= token.expires_at - LIFETIME <= now()
    assert tokens().account_of(token.text) == "acc-1"
    said = jwt.decode(token.text, KEY.public_key, ["ES256"], audience="shop")
    assert said["roles"] == ["staff"]
    assert said["auth_time"] == int(signed_in_at.timestamp())
    assert jwt.get_unverified_header(token.text) == {"alg": "ES256", "typ": "at+jwt", "kid": KEY.kid}


def test_what_the_attacks_are_made_of_is_believed_without_them():
    assert tokens().account_of(signed()) == "acc-1"


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_what_is_not_believed(attack):
    with pytest.raises(TokenInvalid):
        tokens().account_of(attack())


def test_clocks_may_be_a_little_apart():
    little = LEEWAY - timedelta(seconds=5)
    assert tokens().account_of(signed(claims(exp=now() - little))) == "acc-1"


def test_the_newest_key_that_may_sign_signs_and_one_that_is_shown_early_does_not():
    soon = key(age=-timedelta(minutes=5))
    keyring = Keyring((soon, KEY, key(age=timedelta(days=2))))
    assert keyring.signer(now()) is KEY
    assert keyring.signer(now() + timedelta(minutes=6)) is soon
    assert Keyring((soon,)).signer(now()) is soon, "the first key of all, made by a replica whose clock is ahead"
    with pytest.raises(LookupError):
        tokens(Keyring()).sign("acc-1", now(), ())
