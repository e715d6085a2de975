"""The rules that only a real Postgres can keep."""

from datetime import timedelta

import pytest
from amends_events import Outbox
from shop_identity import store
from shop_identity.events import PUBLISHES
from shop_identity.refresh import RefreshToken

OUTBOX = Outbox("/shop/identity", PUBLISHES)
IDLE = timedelta(days=14)


async def account(database):
    async with database.transaction() as transaction:
        await store.open_account(transaction, OUTBOX, "acc-1", "ada@example.com", "hash")
        return await store.account_at(transaction, "ada@example.com")


async def begin(database, one):
    token = RefreshToken.new()
    async with database.transaction() as transaction:
        return token, await store.begin_session(transaction, one, token, IDLE)


async def attempt(database):
    async with database.transaction() as transaction:
        return await store.begin_attempt(transaction, b"who")


async def test_each_try_beyond_the_free_ones_waits_twice_as_long_up_to_a_limit(database):
    waits = []
    for _ in range(store.FREE_ATTEMPTS + 12):
        assert await attempt(database)
        waits.append(await database.pool.fetchval("SELECT extract(epoch FROM blocked_until - now())::int FROM attempt"))
        if waits[-1] > 0:
            assert not await attempt(database)
        await database.pool.execute("UPDATE attempt SET blocked_until = now()")
    longest = int(store.LONGEST_WAIT.total_seconds())
    doubling = [min(2**number, longest) for number in range(13)]
    assert waits[store.FREE_ATTEMPTS - 1 :] == pytest.approx(doubling, abs=1)
    assert max(waits[: store.FREE_ATTEMPTS - 1]) <= 0


async def test_tries_are_forgotten_after_a_day(database):
    for _ in range(store.FREE_ATTEMPTS):
        assert await attempt(database)
    await database.pool.execute("UPDATE attempt SET last_at = now() - interval '25 hours', blocked_until = now()")
    assert await attempt(database)
    assert await database.pool.fetchval("SELECT failures FROM attempt") == 1


async def test_an_account_has_so_many_sessions_and_the_oldest_makes_room(database):
    one = await account(database)
    tokens = [(await begin(database, one))[0] for _ in range(store.SESSIONS + 2)]
    left = await database.pool.fetch("SELECT session_id FROM session")
    assert {row["session_id"] for row in left} == {token.session_id for token in tokens[2:]}


async def test_no_session_begins_for_an_account_that_was_closed_meanwhile(database):
    one = await account(database)
    async with database.transaction() as transaction:
        await store.close_account(transaction, OUTBOX, "acc-1")
    _, session = await begin(database, one)
    assert session is None


async def test_what_has_ended_is_deleted(database):
    one = await account(database)
    await begin(database, one)
    await begin(database, one)
    await database.pool.execute(
        "UPDATE session SET expires_at = now() WHERE session_id = (SELECT session_id FROM session LIMIT 1)"
    )
    await database.pool.execute("INSERT INTO attempt (who, failures, last_at) VALUES ('x', 1, now() - interval '2d')")
    async with database.transaction() as transaction:
        await store.expire(transaction)
    assert await database.pool.fetchval("SELECT count(*) FROM session") == 1
    assert await database.pool.fetchval("SELECT count(*) FROM attempt") == 0


async def test_the_secret_of_a_refresh_token_is_not_in_the_database(database):
    token, _ = await begin(database, await account(database))
    stored = await database.pool.fetchval("SELECT token_hash FROM session")
    assert stored == token.token_hash
    assert token.secret not in stored
    assert RefreshToken.parse(token.text) == token


@pytest.mark.parametrize("shown", [repr, str])
def test_a_refresh_token_is_not_shown_by_accident(shown):
    token = RefreshToken.new()
    assert token.secret.hex() not in shown(token)
    assert repr(token.secret) not in shown(token)
