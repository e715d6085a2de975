"""Which access tokens are believed, and what becomes of their issuer's keys."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from amends_chassis import issuer as issuer_module
from amends_chassis import tokens as tokens_module
from amends_chassis.errors import DomainError, Unauthenticated, Unavailable
from amends_chassis.issuer import ASK_AT_MOST_EVERY, KEPT_FOR, MAX_DOCUMENT, IssuerKeys, KeysError, parse
from amends_chassis.tokens import LEEWAY, MAX_TOKEN, REMEMBERED_FOR, TokenVerifier
from amends_testkit.issuer import AUDIENCE, ISSUER, LocalIssuer, local_issuer
from amends_testkit.waiting import eventually
from cryptography.hazmat.primitives import serialization
from prometheus_client import CollectorRegistry

LATER = int(LEEWAY.total_seconds()) + 5


class WallClock:
    """Seconds since 1970, and as many more as the test lets pass."""

    def __init__(self):
        self.passed = 0.0

    def __call__(self):
        return time.time() + self.passed

    def go(self, by: timedelta):
        self.passed += by.total_seconds()


class Believer:
    """A verifier with the keys of an issuer, and its figures."""

    def __init__(self, issuer, kept_in=None):
        self.issuer = issuer
        self.clock = WallClock()
        self.registry = CollectorRegistry()
        self.keys = IssuerKeys(issuer.url, self.registry, kept_in, self.clock)
        self.verifier = TokenVerifier(ISSUER, AUDIENCE, self.keys, self.registry, self.clock)

    async def says(self, token):
        """Return the reason for which a token is refused, or whose it is."""
        try:
            return (await self.verifier.verify(token)).subject
        except DomainError as refused:
            return refused.reason

    def figure(self, name, **labels):
        return self.registry.get_sample_value(name, labels)


@asynccontextmanager
async def believing(issuer, kept_in=None):
    """A verifier whose keys were fetched once and are fetched as its clock says."""
    believer = Believer(issuer, kept_in)
    polling = asyncio.create_task(believer.keys.run())
    try:
        await eventually(lambda: believer.figure("amends_issuer_keys_fetches_total", outcome="fetched") == 1)
        yield believer
    finally:
        polling.cancel()
        await asyncio.wait({polling})


@pytest.fixture
def issuer():
    with local_issuer() as issuer:
        yield issuer


SIGNER = LocalIssuer()


def unsigned(algorithm, signature=lambda signed: b""):
    """A token that no library would make."""
    header, claims, _ = SIGNER.token().split(".")
    header = base64.urlsafe_b64encode(json.dumps({"alg": algorithm, "kid": "k1", "typ": "at+jwt"}).encode())
    body = header.rstrip(b"=") + b"." + claims.encode()
    return (body + b"." + base64.urlsafe_b64encode(signature(body)).rstrip(b"=")).decode()


def with_the_public_key_as_secret(body):
    pem = SIGNER.keys["k1"].public_key()
    secret = pem.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hmac.digest(secret, body, hashlib.sha256)


def now(later=0):
    return int(time.time()) + later


REFUSED = {
    "nothing": (lambda: "", "TOKEN_MALFORMED"),
    "no token": (lambda: "a.b.c", "TOKEN_MALFORMED"),
    "not even text": (lambda: "\ud800.b.c", "TOKEN_MALFORMED"),
    "far too long": (lambda: SIGNER.token() + "x" * MAX_TOKEN, "TOKEN_MALFORMED"),
    "of another kind": (lambda: SIGNER.token(headers={"typ": "JWT"}), "TOKEN_MALFORMED"),
    "with extensions": (lambda: SIGNER.token(headers={"crit": ["exp"]}), "TOKEN_MALFORMED"),
    "of no algorithm": (lambda: unsigned("none"), "TOKEN_ALGORITHM_WRONG"),
    "the public key as a secret": (
        lambda: unsigned("HS256", with_the_public_key_as_secret),
        "TOKEN_ALGORITHM_WRONG",
    ),
    "another case of the algorithm": (lambda: unsigned("es256"), "TOKEN_ALGORITHM_WRONG"),
    "a path for a key": (lambda: SIGNER.token(headers={"kid": "../../dev/null"}), "TOKEN_KEY_UNKNOWN"),
    "no name of a key": (lambda: SIGNER.token(headers={"kid": ""}), "TOKEN_KEY_UNKNOWN"),
    "a key of nobody": (lambda: SIGNER.token(headers={"kid": "k9"}), "TOKEN_KEY_UNKNOWN"),
    "signed by another key": (lambda: SIGNER.token(key=LocalIssuer().keys["k1"]), "TOKEN_SIGNATURE_WRONG"),
    "changed": (lambda: SIGNER.token()[:-8] + "AAAAAAAA", "TOKEN_SIGNATURE_WRONG"),
    "of another issuer": (lambda: SIGNER.token(iss=f"{ISSUER}/"), "TOKEN_ISSUER_WRONG"),
    "for somebody else": (lambda: SIGNER.token(aud="another shop"), "TOKEN_AUDIENCE_WRONG"),
    "expired": (lambda: SIGNER.token(exp=now(-LATER)), "TOKEN_EXPIRED"),
    "not valid yet": (lambda: SIGNER.token(nbf=now(LATER)), "TOKEN_NOT_VALID_YET"),
    "given out later": (lambda: SIGNER.token(iat=now(LATER)), "TOKEN_NOT_VALID_YET"),
    "of nobody": (lambda: SIGNER.token(""), "TOKEN_MALFORMED"),
    "of a role that is a number": (lambda: SIGNER.token(roles=[1]), "TOKEN_MALFORMED"),
    "of roles that are text": (lambda: SIGNER.token(roles="staff"), "TOKEN_MALFORMED"),
    "signed in at no time": (lambda: SIGNER.token(auth_time="yesterday"), "TOKEN_MALFORMED"),
    "for ever and ever": (lambda: SIGNER.token(exp=10**18), "TOKEN_MALFORMED"),
} | {
    f"without {claim}": (lambda claim=claim: SIGNER.token(**{claim: None}), "TOKEN_CLAIM_MISSING")
    for claim in ("iss", "aud", "sub", "iat", "exp", "jti", "auth_time")
}


async def test_a_token_says_who_shows_it(issuer):
    async with believing(issuer) as believer:
        token = issuer.token("ada", roles=["staff"], scope="orders:read orders:write", auth_time=now(-60))
        principal = await believer.verifier.verify(token)
        assert (principal.subject, principal.issuer, principal.token) == ("ada", ISSUER, token)
        assert (principal.roles, principal.scopes) == ({"staff"}, {"orders:read", "orders:write"})
        assert 59 <= time.time() - principal.authenticated_at.timestamp() <= 62
        assert token not in repr(principal)
        assert (await believer.verifier.verify(issuer.token(aud=["other", AUDIENCE]))).roles == frozenset()


async def test_what_is_refused_is_told_what_is_wrong_with_it_and_counted(issuer):
    issuer.keys = SIGNER.keys
    async with believing(issuer) as believer:
        assert await believer.says(SIGNER.token()) == "ada", "what the others are made of"
        assert await believer.says(SIGNER.token(exp=now(-LATER + 10))) == "ada", "clocks may be a little apart"
        said = {name: await believer.says(made()) for name, (made, _) in REFUSED.items()}
        assert said == {name: reason for name, (_, reason) in REFUSED.items()}
        count = believer.figure("amends_access_tokens_total", outcome="token_claim_missing")
        assert count == 7
        with pytest.raises(Unauthenticated):
            await believer.verifier.verify(REFUSED["expired"][0]())


async def test_ten_thousand_keys_that_nobody_has_are_asked_for_once(issuer):
    async with believing(issuer) as believer:
        header, rest = SIGNER.token().split(".", 1)
        for number in range(10_000):
            header = base64.urlsafe_b64encode(b'{"alg":"ES256","kid":"k%d","typ":"at+jwt"}' % (number + 9))
            assert await believer.says(f"{header.decode().rstrip('=')}.{rest}") == "TOKEN_KEY_UNKNOWN"
        assert issuer.fetches == 1, "they were fetched less than ten seconds ago"
        believer.clock.go(ASK_AT_MOST_EVERY)
        asked = [believer.says(SIGNER.token(headers={"kid": f"n{number}"})) for number in range(50)]
        assert set(await asyncio.gather(*asked)) == {"TOKEN_KEY_UNKNOWN"}
        assert issuer.fetches == 2, "fifty calls at once wait for one answer"


async def test_a_key_that_signs_sooner_than_it_was_shown_is_asked_for(issuer):
    async with believing(issuer) as believer:
        issuer.add_key("k2")
        believer.clock.go(ASK_AT_MOST_EVERY)
        assert await believer.says(issuer.token(kid="k2")) == "ada"
        assert await believer.says(issuer.token()) == "ada", "the one before is still published"


async def test_tokens_are_believed_for_a_day_while_the_issuer_is_away(issuer):
    async with believing(issuer) as believer:
        issuer.status = 503
        believer.clock.go(timedelta(hours=1))
        assert await believer.says(issuer.token()) == "ada"
        assert await believer.says(issuer.token(headers={"kid": "k2"})) == "ISSUER_UNREACHABLE"
        assert believer.figure("amends_issuer_keys_fetches_total", outcome="failed") == 1
        believer.clock.go(KEPT_FOR)
        with pytest.raises(Unavailable):
            await believer.verifier.verify(issuer.token())
        issuer.status = 200
        believer.clock.go(ASK_AT_MOST_EVERY)
        assert await believer.says(issuer.token()) == "ada"


async def test_an_issuer_that_hangs_holds_up_nobody_whose_key_is_known(issuer, monkeypatch):
    monkeypatch.setattr(issuer_module, "WAIT_FOR_KEYS", timedelta(milliseconds=50))
    async with believing(issuer) as believer:
        issuer.answering.clear()
        believer.clock.go(ASK_AT_MOST_EVERY)
        async with asyncio.timeout(5):
            assert await believer.says(issuer.token(headers={"kid": "k2"})) == "ISSUER_UNREACHABLE"
            assert await believer.says(issuer.token()) == "ada"
        assert issuer.fetches == 2


async def test_an_answer_that_never_ends_is_given_up(issuer, monkeypatch):
    monkeypatch.setattr(issuer_module, "_FETCHED_WITHIN", timedelta(milliseconds=50))
    issuer.answering.clear()
    believer = Believer(issuer)
    assert await believer.says(issuer.token()) == "ISSUER_UNREACHABLE"
    assert believer.figure("amends_issuer_keys_fetches_total", outcome="failed") == 1


async def test_a_token_is_looked_at_once_a_minute_and_not_after_it_has_expired(issuer):
    async with believing(issuer) as believer:
        long, short = issuer.token(), issuer.token(exp=now(30))

        async def seen(token):
            assert await believer.says(token) == "ada"
            return int(believer.figure("amends_access_tokens_total", outcome="verified"))

        assert [await seen(long), await seen(long), await seen(short), await seen(short)] == [1, 1, 2, 2]
        believer.clock.go(timedelta(seconds=31))
        assert [await seen(short), await seen(long)] == [3, 3]
        believer.clock.go(REMEMBERED_FOR - timedelta(seconds=31))
        assert await seen(long) == 4
        assert believer.figure("amends_access_tokens_total", outcome="remembered") == 3


async def test_so_many_tokens_are_remembered_and_no_more(issuer, monkeypatch):
    monkeypatch.setattr(tokens_module, "REMEMBERED", 2)
    async with believing(issuer) as believer:
        tokens = [issuer.token(f"acc-{number}") for number in range(3)]
        for token in (*tokens, tokens[2], tokens[0]):
            await believer.verifier.verify(token)
        assert believer.figure("amends_access_tokens_total", outcome="remembered") == 1
        assert believer.figure("amends_access_tokens_total", outcome="verified") == 4


@pytest.mark.parametrize("replaced", [True, False], ids=["another key of its name", "no such key"])
async def test_what_a_withdrawn_key_signed_is_refused_although_it_is_remembered(issuer, replaced):
    issuer.add_key("k2")
    async with believing(issuer) as believer:
        withdrawn, kept = issuer.token(), issuer.token("bob", kid="k2")
        assert [await believer.says(token) for token in (withdrawn, kept)] == ["ada", "bob"]
        if replaced:
            issuer.add_key("k1")
        else:
            del issuer.keys["k1"]
        believer.clock.go(ASK_AT_MOST_EVERY)
        assert (
            await believer.says(SIGNER.token(headers={"kid": "k3"})) == "TOKEN_KEY_UNKNOWN"
        )  # and so they are fetched
        refused = "TOKEN_SIGNATURE_WRONG" if replaced else "TOKEN_KEY_UNKNOWN"
        assert [await believer.says(token) for token in (withdrawn, kept)] == [refused, "bob"]
        assert believer.figure("amends_access_tokens_total", outcome="remembered") == 1


async def test_keys_are_kept_for_a_process_that_starts_while_the_issuer_is_away(issuer, tmp_path):
    kept_in = tmp_path / "keys.json"
    async with believing(issuer, kept_in):
        pass
    issuer.status = 500
    assert await Believer(issuer, kept_in).says(issuer.token()) == "ada"
    old = json.loads(kept_in.read_text())
    for changes in ({"fetched_at": 0}, {"url": "http://elsewhere/"}, {"document": "{}"}, {"document": 7}):
        kept_in.write_text(json.dumps(old | changes))
        assert await Believer(issuer, kept_in).says(issuer.token()) == "ISSUER_UNREACHABLE", changes
    kept_in.write_text("{")
    assert await Believer(issuer, kept_in).says(issuer.token()) == "ISSUER_UNREACHABLE"


@pytest.mark.parametrize(
    ("status", "body"),
    [(302, None), (200, b"x" * (MAX_DOCUMENT + 1)), (200, b"[]"), (200, b"\xff"), (200, b'{"keys": 1}')],
    ids=["elsewhere", "too large", "no key set", "no text", "no list"],
)
async def test_an_answer_without_keys_is_none(issuer, status, body):
    issuer.status, issuer.body = status, body
    believer = Believer(issuer)
    assert await believer.says(SIGNER.token()) == "ISSUER_UNREACHABLE"
    assert issuer.fetches == 1
    assert believer.figure("amends_issuer_keys_fetches_total", outcome="failed") == 1


def test_keys_for_anything_else_are_left_out_and_a_doubtful_set_is_refused():
    key = json.loads(SIGNER.document())["keys"][0]
    others = [
        key | {"kid": "encrypts", "use": "enc"},
        key | {"kid": "of another algorithm", "alg": "ES384"},
        key | {"kid": "private", "d": "AAAA"},
        key | {"kid": "../path"},
        {"kid": "secret", "kty": "oct", "k": "AAAA"},
        {"kty": "EC"},
        "text",
    ]
    assert list(parse(json.dumps({"keys": [key, *others]}))) == ["k1"]
    for wrong in ([key, key], [key | {"x": "AAAA"}], [key] * 65):
        with pytest.raises(KeysError):
            parse(json.dumps({"keys": wrong}))


def test_keys_have_an_address_of_http():
    for url in ("file:///etc/passwd", "identity/keys", "http://", "http://host:port/"):
        with pytest.raises(ValueError, match=r"."):
            IssuerKeys(url, CollectorRegistry())
