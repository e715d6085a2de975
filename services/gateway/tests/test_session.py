"""Sessions of people: which exchanges of a refresh token are one."""

import asyncio
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from amends_testkit.waiting import eventually
from google.protobuf.timestamp_pb2 import Timestamp
from shop_gateway.pages import session
from shop_gateway.pages.session import Sessions, WebSession

from shop.identity.v1 import identity_pb2 as pb


class Identity:
    """Answers each exchange, and counts them."""

    def __init__(self) -> None:
        self.stub = SimpleNamespace(Refresh=None)
        self.asked = 0

    async def ask(self, method: Any, request: pb.RefreshRequest, **how: Any) -> pb.RefreshResponse:
        self.asked += 1
        later = Timestamp(seconds=2**32)
        tokens = pb.Tokens(
            access_token="a", access_token_expires_at=later, refresh_token="r", refresh_token_expires_at=later
        )
        return pb.RefreshResponse(tokens=tokens)


async def test_a_refresh_token_that_is_shown_much_later_is_shown_to_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "REMEMBERED_FOR", timedelta())
    identity = Identity()
    sessions, old = Sessions(SimpleNamespace(identity=identity)), WebSession("ada", "a", 0, "old", 0)  # type: ignore[arg-type]
    first, at_once = await asyncio.gather(sessions.fresh(old), sessions.fresh(old))
    assert first is at_once
    assert identity.asked == 1
    await eventually(lambda: not sessions._exchanges)
    await sessions.fresh(old)
    assert identity.asked == 2
