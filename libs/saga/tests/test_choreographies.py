"""Broken choreographies are found, those that look alike are accepted: all of them are the shop's, with one change."""

import time
from datetime import timedelta
from pathlib import Path

import pytest
from amends_saga.check import ChoreographyCheck, check
from amends_saga.check.render import text
from amends_saga.choreography import needed_files
from amends_saga.choreography.plan import AnswerPlan, ChoreographyPlan, EventPlan
from amends_saga.choreography.walk import walk
from amends_saga.definition import Document
from google.protobuf.descriptor_pb2 import FileDescriptorSet

ORDER = (Path(__file__).parents[3] / "examples/place-order/choreography.yaml").read_text()
STOCK, PAYMENTS = "shop.inventory.events.v1", "shop.payments.events.v1"
ORDERS, SHIPPING = "shop.orders.events.v1", "shop.shipping.events.v1"
BY_THE_DEADLINE = f"""        - by: orders  # by its deadline at the latest
          with: [{ORDERS}.OrderConfirmed, {ORDERS}.OrderRejected]
          within: 90s
"""
SHORT = f"    - event: {STOCK}.StockShort\n      effect: false\n"
REJECTED_UPON_SHORT = f"{SHORT}      answers: [{{by: orders, with: [{ORDERS}.OrderRejected], within: 2s}}]\n"
TAKEN_OR_FAILED = f"with: [{PAYMENTS}.PaymentTaken, {PAYMENTS}.PaymentFailed]"
FAILED = f"    - event: {PAYMENTS}.PaymentFailed\n      effect: false\n"
REJECTED_UPON_FAILED = f"{FAILED}      answers: [{{by: orders, with: [{ORDERS}.OrderRejected], within: 2s}}]\n"

ENDS = "      ends: Undone\n"

Change = tuple[tuple[str, str], ...]

BROKEN: dict[str, tuple[str, Change, str]] = {
    "a path has no end": (
        "AM101",
        ((BY_THE_DEADLINE, ""), (REJECTED_UPON_SHORT, SHORT)),
        "After OrderPlaced > StockShort nothing more comes",
    ),
    "a refusal is answered by nobody": (
        "AM094",
        (
            (REJECTED_UPON_FAILED, FAILED),
            (
                f"        - {PAYMENTS}.PaymentFailed\n        - {PAYMENTS}.PaymentTaken\n",
                f"        - {PAYMENTS}.PaymentTaken\n",
            ),
            (
                f"        - {PAYMENTS}.PaymentFailed\n        - {SHIPPING}.ParcelRefused",
                f"        - {SHIPPING}.ParcelRefused",
            ),
            (f"          - {PAYMENTS}.PaymentFailed\n", ""),
        ),
        f"Nobody consumes `{PAYMENTS}.PaymentFailed`",
    ),
    "an effect has nothing that undoes it": (
        "AM103",
        (
            (f"      undoneBy: {{event: {SHIPPING}.ParcelCancelled, within: 5s}}\n", ""),
            (f"    - event: {SHIPPING}.ParcelCancelled\n", ""),
            (f"        - {SHIPPING}.ParcelCancelled\n", ""),
        ),
        "Nothing undoes `ParcelBooked` on the path",
    ),
    "an effect is undone upon some ends only": (
        "AM103",
        (
            (
                f"        upon: [{ORDERS}.OrderRejected, {SHIPPING}.ParcelRefused]",
                f"        upon: [{SHIPPING}.ParcelRefused]",
            ),
        ),
        "`PaymentRefunded` comes upon none of the events of the path",
    ),
    "nobody publishes an event": (
        "AM093",
        (
            (
                f"        - {PAYMENTS}.PaymentFailed\n        - {PAYMENTS}.PaymentRefunded",
                f"        - {PAYMENTS}.PaymentRefunded",
            ),
        ),
        f"No participant publishes `{PAYMENTS}.PaymentFailed`.",
    ),
    "an event is in no contract": (
        "AM090",
        ((f"{STOCK}.StockShort", f"{STOCK}.StockShrot"),),
        f"There is no message `{STOCK}.StockShrot`",
    ),
    "a message is no event": (
        "AM091",
        ((f"{STOCK}.StockReleased", "shop.inventory.v1.ReleaseResponse"),),
        "is no event of a topic",
    ),
    "an event lacks the key": (
        "AM092",
        ((f"{STOCK}.StockReleased", f"{STOCK}.StockChanged"),),
        f"`{STOCK}.StockChanged` has no text `order_id`.",
    ),
    "events follow each other for ever": (
        "AM102",
        (
            (
                REJECTED_UPON_FAILED,
                f"{FAILED}      answers: [{{by: inventory, with: [{STOCK}.StockReserved], within: 10s}}]\n",
            ),
        ),
        "StockReserved > PaymentFailed > StockReserved",
    ),
    "who answers does not hear of it": (
        "AM097",
        ((f"        - {STOCK}.StockReserved\n        - {ORDERS}.OrderRejected", f"        - {ORDERS}.OrderRejected"),),
        f"`payments` answers `{STOCK}.StockReserved`, and does not consume it.",
    ),
    "who undoes does not hear that it must": (
        "AM097",
        (
            (
                f"      consumes:\n        - {ORDERS}.OrderRejected\n        - {PAYMENTS}",
                f"      consumes:\n        - {PAYMENTS}",
            ),
        ),
        f"`shipping` undoes upon `{ORDERS}.OrderRejected`",
    ),
    "another one publishes the answer": (
        "AM096",
        ((f"by: payments\n          {TAKEN_OR_FAILED}", f"by: inventory\n          {TAKEN_OR_FAILED}"),),
        f"`{PAYMENTS}.PaymentTaken` is published by `payments`, not by `inventory`.",
    ),
    "an effect undoes itself": (
        "AM103",
        (
            (
                f"undoneBy: {{event: {SHIPPING}.ParcelCancelled, within",
                f"undoneBy: {{event: {SHIPPING}.ParcelBooked, within",
            ),
            (f"    - event: {SHIPPING}.ParcelCancelled\n", ""),
            (f"        - {SHIPPING}.ParcelCancelled\n", ""),
        ),
        "`ParcelBooked` undoes itself.",
    ),
    "events undo each other": (
        "AM103",
        (
            (
                f"    - event: {SHIPPING}.ParcelCancelled\n",
                f"    - event: {SHIPPING}.ParcelCancelled\n"
                f"      undoneBy: {{event: {SHIPPING}.ParcelBooked, within: 5s}}\n",
            ),
        ),
        "Events undo each other: ParcelBooked > ParcelCancelled > ParcelBooked.",
    ),
    "what answers has come before": (
        "AM101",
        (
            (
                REJECTED_UPON_FAILED,
                f"{FAILED}      atMost: 2\n      answers:\n"
                f"        - {{by: inventory, with: [{STOCK}.StockReserved], within: 10s}}\n",
            ),
            (f"          - {PAYMENTS}.PaymentFailed\n", ""),
            (BY_THE_DEADLINE, ""),
        ),
        "After OrderPlaced > StockReserved > PaymentFailed nothing more comes",
    ),
    "who answers is nobody": (
        "AM095",
        (("        - by: inventory", "        - by: inventry"),),
        "There is no participant `inventry`.",
    ),
    "two publish one event": (
        "AM100",
        (
            (
                f"        - {SHIPPING}.ParcelCancelled\n",
                f"        - {SHIPPING}.ParcelCancelled\n        - {STOCK}.StockShort\n",
            ),
        ),
        f"`inventory` and `shipping` publish `{STOCK}.StockShort`.",
    ),
    "an answer is not described": (
        "AM098",
        ((f"    - event: {STOCK}.StockReleased\n", ""),),
        f"`events` does not describe `{STOCK}.StockReleased`.",
    ),
    "the condition can never hold": (
        "AM106",
        (("FULFILMENT_CHOREOGRAPHED", "CHOREOGRAPHED"),),
        "`fulfilment` is never `CHOREOGRAPHED`.",
    ),
}

ALIKE: dict[str, Change] = {
    "it ends undone by another end too": (
        (
            f"        - {ORDERS}.OrderRejected\n      consumes",
            f"        - {ORDERS}.OrderRejected\n        - {ORDERS}.OrderRefunded\n      consumes",
        ),
        (
            f"with: [{ORDERS}.OrderConfirmed, {ORDERS}.OrderRejected]",
            f"with: [{ORDERS}.OrderConfirmed, {ORDERS}.OrderRejected, {ORDERS}.OrderRefunded]",
        ),
        (
            f"          - {ORDERS}.OrderRejected\n",
            f"          - {ORDERS}.OrderRejected\n          - {ORDERS}.OrderRefunded\n",
        ),
        (f"upon: [{ORDERS}.OrderRejected, ", f"upon: [{ORDERS}.OrderRejected, {ORDERS}.OrderRefunded, "),
        (
            f"        - {ORDERS}.OrderRejected\n        - ",
            f"        - {ORDERS}.OrderRejected\n        - {ORDERS}.OrderRefunded\n        - ",
        ),
        (
            f"    - event: {ORDERS}.OrderRejected\n",
            f"    - event: {ORDERS}.OrderRefunded\n      ends: Undone\n    - event: {ORDERS}.OrderRejected\n",
        ),
    ),
    "an effect has nothing that undoes it, and says that it needs nothing": (
        (f"      undoneBy: {{event: {SHIPPING}.ParcelCancelled, within: 5s}}\n", "      effect: false\n"),
        (f"    - event: {SHIPPING}.ParcelCancelled\n", ""),
        (f"        - {SHIPPING}.ParcelCancelled\n", ""),
    ),
    "events follow each other three times": (
        (
            REJECTED_UPON_FAILED,
            f"{FAILED}      atMost: 3\n      answers:\n        - by: inventory\n"
            f"          with: [{STOCK}.StockReserved, {STOCK}.StockShort]\n          within: 10s\n",
        ),
        (f"    - event: {STOCK}.StockReserved\n", f"    - event: {STOCK}.StockReserved\n      atMost: 3\n"),
    ),
    "a second attempt may end in another way than the first": (
        (
            REJECTED_UPON_FAILED,
            f"{FAILED}      atMost: 3\n      answers:\n        - by: inventory\n"
            f"          with: [{STOCK}.StockReserved]\n          within: 10s\n",
        ),
        (f"    - event: {STOCK}.StockReserved\n", f"    - event: {STOCK}.StockReserved\n      atMost: 4\n"),
        (BY_THE_DEADLINE, ""),
        (f"      undoneBy: {{event: {SHIPPING}.ParcelCancelled, within: 5s}}\n", "      effect: false\n"),
        (f"    - event: {SHIPPING}.ParcelCancelled\n", ""),
        (f"        - {SHIPPING}.ParcelCancelled\n", ""),
    ),
    "an event is heard by somebody who does not answer": (
        (
            f"        - {STOCK}.StockShort\n        - {PAYMENTS}",
            f"        - {STOCK}.StockShort\n        - {STOCK}.StockReserved\n        - {PAYMENTS}",
        ),
    ),
    "a participant answers its own event without consuming it": (
        ("        - by: orders  # by its deadline at the latest\n", "        - by: orders\n"),
    ),
    "there is no condition": (("    where: {fulfilment: FULFILMENT_CHOREOGRAPHED}\n", ""),),
    "two events are answered by one, each by itself": (
        (
            f"answers: [{{by: orders, with: [{ORDERS}.OrderConfirmed], within: 2s}}]",
            f"answers: [{{by: orders, with: [{ORDERS}.OrderConfirmed, {ORDERS}.OrderRejected], within: 2s}}]",
        ),
    ),
}


def checked(changes: Change, contracts: bytes) -> ChoreographyCheck:
    """Checks the shop's choreography with some texts replaced, each of which is there."""
    changed = ORDER
    for before, after in changes:
        assert before in changed, before
        changed = changed.replace(before, after)
    return check([Document("choreography.yaml", changed)], descriptors=contracts).choreographies[0]


def test_the_choreography_of_the_shop_is_accepted(shop_contract: bytes) -> None:
    found = checked((), shop_contract)
    assert found.findings == []
    assert found.plan is not None


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_choreography_is_found(what: str, shop_contract: bytes) -> None:
    code, changes, said = BROKEN[what]
    found = checked(changes, shop_contract)
    errors = [finding for finding in found.findings if finding.is_error]
    assert {finding.code for finding in errors} == {code}, text(found.findings)
    assert any(said in finding.message for finding in errors), text(found.findings)
    assert all(finding.place.line > 0 and finding.hint for finding in errors)
    assert found.plan is None


@pytest.mark.parametrize("what", ALIKE)
def test_one_that_looks_alike_is_accepted(what: str, shop_contract: bytes) -> None:
    found = checked(ALIKE[what], shop_contract)
    assert found.findings == [], text(found.findings)
    assert found.plan is not None


def test_two_who_may_end_it_differently_are_told(shop_contract: bytes) -> None:
    refused = f"    - event: {SHIPPING}.ParcelRefused\n      effect: false\n"
    found = checked(
        ((f"{refused}      answers: [{{by: orders, with: [{ORDERS}.OrderRejected], within: 2s}}]\n", refused + ENDS),),
        shop_contract,
    )
    assert [finding.code for finding in found.findings] == ["AM108"], text(found.findings)
    assert "`orders` by `OrderConfirmed`, and `shipping` by `ParcelRefused`" in found.findings[0].message
    assert found.plan is not None


def test_a_walk_ends_soon_however_large_the_choreography_is() -> None:
    """A chain of a hundred events that each may come a hundred times, and are all answered by the same twenty."""
    names = [f"e{number}" for number in range(100)]
    events = {}
    for number, name in enumerate(names):
        following = names[(number + 1) % 100]
        answers = tuple(AnswerPlan("a", (following, names[at]), timedelta(seconds=1)) for at in range(20))
        events[name] = EventPlan(name, "a", answers, None, False, 100, None)
    began = time.process_time()
    walked = walk(ChoreographyPlan("n", "c", "k", "e0", {}, events))
    assert not walked.complete
    assert time.process_time() - began < 5


def test_without_contracts_nothing_is_accepted(shop_contract: bytes) -> None:
    found = check([Document("choreography.yaml", ORDER)]).choreographies[0]
    assert [finding.code for finding in found.findings] == ["AM025"]
    assert found.plan is None


@pytest.mark.parametrize("instead", ["", "[]", "{}", "5", "true", "null", "x", "[[a]]", "{a: b}", '"\\0"'])
def test_no_mutilated_choreography_ends_in_an_error_of_ours(instead: str, shop_contract: bytes) -> None:
    """Every third line loses its value, or has another one: there are findings then, and nothing is raised."""
    events = [line.split()[-1] for line in ORDER.splitlines() if "- event: " in line]
    contracts = needed_files(FileDescriptorSet.FromString(shop_contract), events).SerializeToString()
    lines = ORDER.splitlines()
    for number in range(14, len(lines), 3):
        before, colon, _ = lines[number].partition(": ")
        item = "- " if lines[number].lstrip().startswith("- ") else ""
        changed = f"{before}: {instead}" if colon else lines[number].partition("- ")[0] + item + instead
        mutilated = "\n".join([*lines[:number], changed, *lines[number + 1 :]])
        result = check([Document("choreography.yaml", mutilated)], descriptors=contracts)
        assert all(finding.place.line > 0 for finding in result.findings), changed
        assert result.findings or all(one.plan is not None for one in result.choreographies), changed
