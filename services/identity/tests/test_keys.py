"""How keys follow each other, with a real database."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from shop_identity.keys import KEPT_LONGER, SHOWN_BEFORE, KeySecret, SigningKeys
from shop_identity.tokens import AccessTokens

from .conftest import SECRET

EVERY, LIFETIME = timedelta(days=7), timedelta(minutes=10)
START = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    def __init__(self):
        self.now = START

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def replica(database, clock, secret=SECRET):
    return SigningKeys(database, KeySecret(secret), every=EVERY, tokens_live=LIFETIME, clock=clock)


async def test_a_key_is_shown_before_it_signs_and_kept_while_its_tokens_live(database, clock):
    one = replica(database, clock)
    await one.refresh()
    (first,) = one.keyring.keys
    assert one.keyring.signer(clock()).kid == first.kid

    clock.now = START + EVERY - SHOWN_BEFORE
    await one.refresh()
    assert len(one.keyring.keys) == 2
    assert one.keyring.signer(clock()).kid == first.kid
    (second,) = (key for key in one.keyring.keys if key.kid != first.kid)

    clock.now = START + EVERY
    assert one.keyring.signer(clock()).kid == second.kid
    clock.now = START + EVERY + LIFETIME + KEPT_LONGER - timedelta(seconds=1)
    await one.refresh()
    assert {key.kid for key in one.keyring.keys} == {first.kid, second.kid}
    clock.now += timedelta(seconds=1)
    await one.refresh()
    assert [key.kid for key in one.keyring.keys] == [second.kid]


async def test_whoever_keeps_a_copy_of_the_keys_for_some_minutes_knows_the_key_of_every_token_that_lives(
    database, clock
):
    replicas = [replica(database, clock), replica(database, clock)]
    copies, given_out = [], []
    for _ in range(int(3 * EVERY / timedelta(hours=12))):
        for _ in range(3):  # three looks in a row, then half a day
            clock.now += SHOWN_BEFORE / 2
            for each in replicas:
                await each.refresh()
                given_out.append((clock.now, each.keyring.signer(clock.now).kid))
            copies.append((clock.now, {key.kid for key in replicas[0].keyring.keys}))
            for copied_at, copy in copies[-2:]:
                assert clock.now - copied_at <= SHOWN_BEFORE / 2
                assert {kid for at, kid in given_out if clock.now - at <= LIFETIME} <= copy
        clock.now += timedelta(hours=12)
        copies.clear()
    assert len({kid for _, kid in given_out}) >= 3


async def test_replicas_that_start_at_once_have_one_key(database, clock):
    replicas = [replica(database, clock) for _ in range(4)]
    await asyncio.gather(*(each.refresh() for each in replicas))
    assert {key.kid for each in replicas for key in each.keyring.keys} == {replicas[0].keyring.keys[0].kid}


async def test_with_another_secret_a_new_key_signs_and_what_the_old_one_signed_is_believed(database, clock):
    before, after = replica(database, clock), replica(database, clock, "b" * 32)
    await before.refresh()
    clock.now += timedelta(minutes=1)
    await after.refresh()
    old = before.keyring.keys[0]
    assert after.keyring.signer(clock()).kid != old.kid
    assert after.keyring.named(old.kid).private_key is None
    token = AccessTokens("i", "shop", LIFETIME, lambda: before.keyring).sign("acc-1", START, ())
    assert AccessTokens("i", "shop", LIFETIME, lambda: after.keyring).account_of(token.text) == "acc-1"


async def test_the_database_alone_cannot_sign(database, clock):
    one = replica(database, clock)
    await one.refresh()
    raw = one.keyring.keys[0].private_key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    stored = await database.pool.fetchval("SELECT private_key FROM signing_key")
    assert raw not in stored
    assert raw[36:68] not in stored, "the number that makes it private"


async def test_after_a_long_sleep_the_next_key_is_shown_before_it_signs(database, clock):
    one = replica(database, clock)
    await one.refresh()
    (first,) = one.keyring.keys
    clock.now += 3 * EVERY
    await one.refresh()
    assert one.keyring.signer(clock()).kid == first.kid
    assert max(key.signs_from for key in one.keyring.keys) == clock.now + SHOWN_BEFORE
