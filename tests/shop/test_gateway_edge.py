"""What holds for every request."""

from .front import gateway


async def test_an_unknown_address_and_an_unknown_method_are_problems():
    async with gateway() as client:
        missing = await client.get("/v1/nothing")
        wrong = await client.delete("/v1/articles/mug")
    assert (missing.status_code, missing.json()["reason"]) == (404, "ROUTE_UNKNOWN")
    assert (wrong.status_code, wrong.json()["reason"]) == (405, "METHOD_NOT_ALLOWED")
    assert {"GET", "HEAD"} == set(wrong.headers["allow"].split(", "))
    assert missing.headers["content-type"] == "application/problem+json"


async def test_a_service_that_is_not_there_is_unavailable_and_says_when_to_come_back():
    async with gateway() as client:
        answer = await client.get("/v1/articles/mug")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
