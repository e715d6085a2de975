"""A timeline's line, a claim that does not hold, and lines to copy that are valid JSON."""

import io
import json
import re
from datetime import UTC, datetime, timedelta

from amends_demo import guide
from amends_demo.place import CHECKOUT, ShopFolder
from amends_demo.telling import Telling, line
from google.protobuf import json_format
from rich.console import Console
from rich.text import Text

from amends.saga.v1 import run_pb2, run_service_pb2
from shop.identity.v1 import identity_pb2
from shop.orders.v1 import orders_pb2

BEGAN = datetime(2026, 1, 1)


def test_a_line_says_when_what_how_and_who() -> None:
    event = run_pb2.RunEvent(
        kind="RESOLVED",
        step="charge",
        operation=run_pb2.OPERATION_COMPENSATION,
        outcome="rejected",
        code="ABORTED",
        message="retry: [closed]",
        actor="grace",
    )
    event.at.FromDatetime(BEGAN.replace(tzinfo=UTC) + timedelta(milliseconds=1500))
    text = Text.from_markup(line(event, BEGAN)).plain
    assert text.split() == [
        *("+1.500s", "resolved", "charge", "(compensation)", "rejected", "ABORTED", "retry:", "[closed]", "by", "grace")
    ]


def test_a_claim_that_does_not_hold_is_remembered_with_what_was_seen() -> None:
    out = io.StringIO()
    telling = Telling(Console(file=out, width=200))
    telling.claim("the sun shines", True)
    telling.claim("the [moon] shines", False, "clouds")
    assert telling.broken == ["the [moon] shines"]
    assert "BROKEN the [moon] shines: saw 'clouds'" in out.getvalue()


def test_the_lines_to_copy_hold_valid_messages(tmp_path) -> None:
    place = ShopFolder(tmp_path)
    processes = {name: {"address": f"{name}:1", "keys": "k:1"} for name in ("orders", "orchestrator-1", "identity")}
    processes["gateway"] = {"address": "g:1", "shop": "g:2"}
    processes["mail-catcher"] = {"address": "m:1", "page": "http://m:2"}
    with place.held():
        place.write_state("up", "a:1", processes)
        text = "\n".join(guide.lines(place))
    assert "http://g:2/" in text, "where the shop is"
    files = re.findall(r"-d @ \S+ (\S+) < (\S+)", text)
    kinds = {
        "shop.orders.v1.OrderService/PlaceOrder": orders_pb2.PlaceOrderRequest,
        "amends.saga.v1.RunService/StartRun": run_service_pb2.StartRunRequest,
        "shop.identity.v1.IdentityService/SignUp": identity_pb2.SignUpRequest,
        "shop.identity.v1.IdentityService/SignIn": identity_pb2.SignInRequest,
    }
    assert {method for method, _ in files} == set(kinds)
    bodies = {method: json.loads((CHECKOUT / file).read_text()) for method, file in files}
    for method, body in bodies.items():
        json_format.ParseDict(body, kinds[method]())
    json_format.ParseDict(bodies["amends.saga.v1.RunService/StartRun"]["json"], orders_pb2.PlaceOrderInput())
