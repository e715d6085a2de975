"""The service as its callers see it: over gRPC and HTTP, with a real database."""

import asyncio
import json
import time
import urllib.error
import urllib.request

import grpc
import jwt
import pytest
import structlog
from amends_chassis.domain import IdentifierInvalidError
from amends_testkit.service import refusal_of, refusals_of
from amends_testkit.waiting import eventually
from argon2 import PasswordHasher
from shop_identity import api, domain, store

from shop.identity.events.v1.identity_pb2 import AccountClosed, AccountOpened
from shop.identity.v1 import identity_pb2 as pb

from .conftest import serving

ADDRESS, PASSWORD = "ada@example.com", "correct horse battery"


async def sign_up(service, address=ADDRESS, password=PASSWORD):
    return await service.stub.SignUp(pb.SignUpRequest(email_address=address, password=password))


async def sign_in(service, address=ADDRESS, password=PASSWORD):
    return (await service.stub.SignIn(pb.SignInRequest(email_address=address, password=password))).tokens


async def refresh(service, tokens):
    return (await service.stub.Refresh(pb.RefreshRequest(refresh_token=tokens.refresh_token))).tokens


def shown(tokens):
    return (("authorization", f"Bearer {tokens.access_token}"),)


async def refused(call):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return refusal_of(error.value)


def read(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as answer:
        return answer.status, answer.headers, answer.read()


async def published(database):
    types = {one.DESCRIPTOR.full_name: one for one in (AccountOpened, AccountClosed)}
    rows = await database.pool.fetch("SELECT version, type, payload FROM outbox ORDER BY seq")
    return [(row["version"], types[row["type"]].FromString(row["payload"])) for row in rows]


def test_every_refusal_of_the_domain_has_an_answer():
    assert set(api.ERRORS) == refusals_of(domain) - {IdentifierInvalidError}


async def test_who_signed_up_signs_in_and_anybody_can_check_the_token_by_the_published_keys(service):
    await sign_up(service, "Ada@Example.com")
    tokens = await sign_in(service)
    status, headers, body = await asyncio.to_thread(read, service.keys_url)
    assert (status, headers["Content-Type"]) == (200, "application/jwk-set+json")
    keys = jwt.PyJWKSet.from_dict(json.loads(body))
    key = keys[jwt.get_unverified_header(tokens.access_token)["kid"]]
    said = jwt.decode(tokens.access_token, key, ["ES256"], audience="shop")
    assert said["sub"] == tokens.account_id
    assert said["roles"] == []
    assert tokens.access_token_expires_at.seconds - time.time() == pytest.approx(600, abs=10)
    account = (await service.stub.GetAccount(pb.GetAccountRequest(), metadata=shown(tokens))).account
    assert (account.account_id, account.email_address) == (tokens.account_id, ADDRESS)
    assert not {"d", "k"} & set().union(*json.loads(body)["keys"])


async def test_the_published_keys_say_how_long_a_copy_is_good(service):
    _, headers, _ = await asyncio.to_thread(read, service.keys_url)
    assert headers["Cache-Control"] == "public, max-age=60"
    with pytest.raises(urllib.error.HTTPError, match="304"):
        await asyncio.to_thread(read, service.keys_url, **{"If-None-Match": headers["ETag"]})
    with pytest.raises(urllib.error.HTTPError, match="404"):
        await asyncio.to_thread(read, service.keys_url + "/../../etc/passwd")
    with pytest.raises(urllib.error.HTTPError, match="405"):
        await asyncio.to_thread(urllib.request.urlopen, service.keys_url, b"keys")


async def test_signing_up_twice_is_answered_the_same_and_changes_nothing(service, database):
    assert await sign_up(service) == await sign_up(service, password="another password")
    assert await refused(sign_in(service, password="another password")) == ("UNAUTHENTICATED", "CREDENTIALS_WRONG")
    tokens = await sign_in(service)
    assert await published(database) == [(1, AccountOpened(account_id=tokens.account_id))]


async def test_a_hash_of_before_is_made_anew_when_its_password_is_known(service, database):
    await sign_up(service)
    before = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD)
    await database.pool.execute("UPDATE account SET password_hash = $1", before)
    assert await refused(sign_in(service, password="a wrong password")) == ("UNAUTHENTICATED", "CREDENTIALS_WRONG")
    assert await database.pool.fetchval("SELECT password_hash FROM account") == before
    for _ in range(2):
        await sign_in(service)
    assert (await database.pool.fetchval("SELECT password_hash FROM account")).startswith("$argon2id$v=19$m=19456,t=2,")


async def test_the_tokens_of_staff_say_so(service, service_url):
    await sign_up(service)
    account_id = (await sign_in(service)).account_id
    async with serving(service_url, staff=(account_id,)) as told:
        access_token = (await sign_in(told)).access_token
    assert jwt.decode(access_token, options={"verify_signature": False})["roles"] == ["staff"]


async def test_a_wrong_password_and_an_unknown_address_are_told_the_same_after_the_same_work(service):
    await sign_up(service)

    async def work(address):
        began = time.process_time()
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await sign_in(service, address, "a wrong password")
        return time.process_time() - began, (error.value.code(), error.value.details(), refusal_of(error.value))

    known, unknown = [[await work(address) for _ in range(4)] for address in (ADDRESS, "grace@example.com")]
    assert {told for _, told in known} == {told for _, told in unknown}
    assert min(took for took, _ in unknown) > 0.5 * min(took for took, _ in known)


@pytest.mark.parametrize("address", [ADDRESS, "grace@example.com"])
async def test_an_address_that_is_tried_too_often_waits_whether_it_has_an_account_or_not(service, database, address):
    await sign_up(service)
    tried = [await refused(sign_in(service, address, "a wrong password")) for _ in range(store.FREE_ATTEMPTS)]
    assert set(tried) == {("UNAUTHENTICATED", "CREDENTIALS_WRONG")}
    assert await refused(sign_in(service, address)) == ("RESOURCE_EXHAUSTED", "TOO_MANY_ATTEMPTS")
    await database.pool.execute("UPDATE attempt SET blocked_until = now()")
    if address == ADDRESS:
        await sign_in(service)
        assert await database.pool.fetchval("SELECT max(failures) FROM attempt WHERE failures > 1") is None


async def test_guesses_at_the_same_time_count_each(service):
    await sign_up(service)
    guesses = (refused(sign_in(service, password=f"a wrong password {number}")) for number in range(20))
    reasons = [reason for _, reason in await asyncio.gather(*guesses)]
    assert reasons.count("CREDENTIALS_WRONG") == store.FREE_ATTEMPTS


async def test_a_flood_of_passwords_is_turned_away_and_the_service_answers_meanwhile(service):
    await sign_up(service)
    tokens = await sign_in(service)
    asked = [pb.SignInRequest(email_address=f"a{number}@example.com", password=PASSWORD) for number in range(60)]
    flood = [asyncio.create_task(refused(service.stub.SignIn(request, timeout=60))) for request in asked]

    async def some_were_turned_away():
        return any(task.done() and task.result() == ("RESOURCE_EXHAUSTED", "BUSY") for task in flood)

    await eventually(some_were_turned_away)
    await service.stub.GetAccount(pb.GetAccountRequest(), metadata=shown(tokens))
    assert not all(task.done() for task in flood)
    assert {reason for _, reason in await asyncio.gather(*flood)} == {"BUSY", "CREDENTIALS_WRONG"}


async def test_a_refresh_token_is_good_once_and_ends_its_session_when_it_comes_twice(service):
    await sign_up(service)
    first, elsewhere = await sign_in(service), await sign_in(service)
    second = await refresh(service, first)
    third = await refresh(service, second)
    assert len({first.refresh_token, second.refresh_token, third.refresh_token}) == 3
    for stale in (first, third):
        assert await refused(refresh(service, stale)) == ("UNAUTHENTICATED", "SESSION_ENDED")
    await refresh(service, elsewhere)


async def test_of_two_that_use_a_refresh_token_at_once_one_at_most_goes_on(service, database):
    await sign_up(service)
    tokens = await sign_in(service)
    answers = await asyncio.gather(*(refresh(service, tokens) for _ in range(4)), return_exceptions=True)
    assert sum(not isinstance(answer, Exception) for answer in answers) == 1
    assert await database.pool.fetchval("SELECT count(*) FROM session") == 0


async def test_a_refresh_token_that_was_never_given_out_is_refused(service):
    for text in ("", "x", "not base64 !", "AAAA" * 16, "\u20ac" * 64):
        asked = service.stub.Refresh(pb.RefreshRequest(refresh_token=text))
        assert await refused(asked) == ("UNAUTHENTICATED", "SESSION_ENDED"), text
        await service.stub.SignOut(pb.SignOutRequest(refresh_token=text))


async def test_signing_out_ends_one_session_and_everywhere_all(service):
    await sign_up(service)
    one, two, three = [await sign_in(service) for _ in range(3)]
    for _ in range(2):
        await service.stub.SignOut(pb.SignOutRequest(refresh_token=one.refresh_token))
    assert await refused(refresh(service, one)) == ("UNAUTHENTICATED", "SESSION_ENDED")
    await refresh(service, two)
    await service.stub.SignOutEverywhere(pb.SignOutEverywhereRequest(), metadata=shown(three))
    assert await refused(refresh(service, three)) == ("UNAUTHENTICATED", "SESSION_ENDED")


async def test_a_session_ends_when_it_was_not_used_for_long_and_when_it_is_old(service, database):
    await sign_up(service)
    tokens = await sign_in(service)
    await database.pool.execute("UPDATE session SET signed_in_at = now() - interval '89 days'")
    tokens = await refresh(service, tokens)
    left = tokens.refresh_token_expires_at.seconds - time.time()
    assert left == pytest.approx(86400, abs=60), "one day to the ninetieth"
    await database.pool.execute("UPDATE session SET expires_at = now()")
    assert await refused(refresh(service, tokens)) == ("UNAUTHENTICATED", "SESSION_ENDED")


async def test_a_closed_account_leaves_no_row_and_is_told_once(service, database):
    await sign_up(service)
    tokens = await sign_in(service)
    await refused(sign_in(service, password="a wrong password"))
    close = pb.CloseAccountRequest(password=PASSWORD)
    wrong = service.stub.CloseAccount(pb.CloseAccountRequest(password="a wrong password"), metadata=shown(tokens))
    assert await refused(wrong) == ("UNAUTHENTICATED", "CREDENTIALS_WRONG")
    for _ in range(2):
        await service.stub.CloseAccount(close, metadata=shown(tokens))
    for table in ("account", "session", "attempt"):
        assert await database.pool.fetchval(f"SELECT count(*) FROM {table}") == 0
    assert await published(database) == [
        (1, AccountOpened(account_id=tokens.account_id)),
        (2, AccountClosed(account_id=tokens.account_id)),
    ]
    assert await refused(refresh(service, tokens)) == ("UNAUTHENTICATED", "SESSION_ENDED")
    assert await refused(service.stub.GetAccount(pb.GetAccountRequest(), metadata=shown(tokens))) == (
        "NOT_FOUND",
        "ACCOUNT_UNKNOWN",
    )
    await sign_up(service)
    assert (await sign_in(service)).account_id != tokens.account_id


async def test_what_is_ones_own_needs_a_token(service):
    for method in ("GetAccount", "SignOutEverywhere", "CloseAccount"):
        for metadata in ((), (("authorization", "Basic YTpi"),), (("authorization", "Bearer a.b.c"),)):
            asked = getattr(service.stub, method)(getattr(pb, f"{method}Request")(), metadata=metadata)
            assert await refused(asked) == ("UNAUTHENTICATED", "TOKEN_INVALID"), (method, metadata)


async def test_what_nobody_can_sign_up_with_is_refused_with_the_reason(service):
    assert await refused(sign_up(service, "ada")) == ("INVALID_ARGUMENT", "EMAIL_ADDRESS_INVALID")
    assert await refused(sign_up(service, password="short")) == ("INVALID_ARGUMENT", "PASSWORD_INVALID")


async def test_no_log_and_no_row_has_a_password_a_token_or_more_of_an_address_than_it_must(service, database):
    with structlog.testing.capture_logs() as logs:
        await sign_up(service)
        tokens = await sign_in(service)
        following = await refresh(service, tokens)
        await refused(refresh(service, tokens))
        await refused(sign_in(service, password="a wrong password"))
    said = json.dumps(logs, default=str)
    assert "session.token_reused" in said
    secret = (PASSWORD, "a wrong password", tokens.refresh_token, following.refresh_token, tokens.access_token)
    for text in (*secret, ADDRESS):
        assert text not in said
    for table in ("account", "session", "attempt", "outbox"):
        rows = str([dict(row) for row in await database.pool.fetch(f"SELECT * FROM {table}")])
        assert not [text for text in secret if text in rows]
        assert (ADDRESS in rows) == (table == "account")
