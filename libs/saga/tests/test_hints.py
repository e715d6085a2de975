"""What a hint says helps: it is done to the very example that it was given for, and no error is left."""

import re
from difflib import get_close_matches
from types import ModuleType

import pytest
from amends_saga.codes import ALL

INSTEAD = re.compile(r"Did you mean `([^`]+)`\?")
NAMED_OFTEN = {"AM090"}
"""Codes of what stands in several places, all of which are mended."""
EVENT = "demo.events.v1"
EDITS: dict[str, list[tuple[str, str]]] = {
    "AM002": [("&first\n  name", "name")],
    "AM003": [("[" * 65 + "]" * 65, "[]")],
    "AM005": [("kind: RetryPolicy\n", "kind: RetryPolicy\napiVersion: amends.dev/v1alpha1\n")],
    "AM007": [('  request: "BookRequest{}"\n', "")],
    "AM008": [("Shipping/Book\n", 'Shipping/Book\n  request: "BookRequest{}"\n')],
    "AM009": [('"yes"', "true"), ('"yes"', "false")],
    "AM010": [("deadline: 60", f"deadline: {way}") for way in ("100s", "60s", "1m30s", "24h", "30d")],
    "AM011": [("Book-it", "book_it")],
    "AM012": [
        ("name: patient, namespace: shop}\nspec: {attempts: 7", "name: hasty, namespace: shop}\nspec: {attempts: 7")
    ],
    "AM013": [(', identity: "spiffe://shop/sa/shipping"', "")],
    "AM014": [("critical: yes", 'critical: "yes"')],
    "AM021": [
        ("deadline: 5m\n", f"deadline: 5m\n  participants: {{demo.v1.Shipping: shop/{name}}}\n")
        for name in ("shipping", "shipping-too")
    ],
    "AM022": [('methods: ["*"]', 'methods: ["*"], callers: [shop]')],
    "AM023": [("[Reserve]", "[Reserve, Release]")],
    "AM031": [("ONCE", "IDEMPOTENT")],
    "AM040": [("- {name: count, call: demo.v1.Stock/Count", "- {name: first, call: demo.v1.Stock/Count")],
    "AM041": [("name: demo,", "name: number,")],
    "AM043": [(", after: [again]", ", after: []"), (", after: [count]", ", after: []")],
    "AM044": [
        ('"CountRequest{}"', '"CountRequest{}", after: [book]'),
        ("pivot: true, after: []", "pivot: true, after: [count]"),
    ],
    "AM045": [
        (
            '- {name: book_again, call: demo.v1.Shipping/Book, request: "BookRequest{}", pivot: true}',
            '- {name: book_again, call: demo.v1.Shipping/Book, request: "BookRequest{}"}',
        )
    ],
    "AM046": [
        (
            '{name: reserve, call: demo.v1.Stock/Reserve, request: "ReserveRequest{}"',
            '{name: reserve, call: demo.v1.Stock/Reserve, request: "ReserveRequest{}", '
            'compensate: {call: demo.v1.Stock/Release, request: "ReleaseRequest{}"}',
        )
    ],
    "AM047": [
        ("Bank/Transfer", "Bank/Reverse"),
        (
            '- {name: book, call: demo.v1.Shipping/Book, request: "BookRequest{}", pivot: true}\n- {name: transfer, '
            'call: demo.v1.Bank/Transfer, request: "TransferRequest{}"}',
            '- {name: transfer, call: demo.v1.Bank/Transfer, request: "TransferRequest{}", '
            'compensate: {call: demo.v1.Bank/Reverse, request: "TransferRequest{}"}}\n'
            '- {name: book, call: demo.v1.Shipping/Book, request: "BookRequest{}", pivot: true}',
        ),
    ],
    "AM048": [('\n  compensate: {call: demo.v1.Stock/Release, request: "ReleaseRequest{}"}', "")],
    "AM049": [
        ("  pivot: true\n", ""),
        ('\n  compensate: {call: demo.v1.Stock/Release, request: "ReleaseRequest{}"}', ""),
    ],
    "AM050": [
        (', when: "input.pieces > 0"', ""),
        ('> 0"', '> 0", compensate: {call: demo.v1.Shipping/Book, request: "BookRequest{}"}'),
    ],
    "AM051": [
        (", pivot: true}", '}\n- {name: book, call: demo.v1.Shipping/Book, request: "BookRequest{}", pivot: true}')
    ],
    "AM052": [("compensate: {call: demo.v1.Bank/Transfer", "compensate: {call: demo.v1.Bank/Reverse")],
    "AM053": [
        ('demo.v1.Stock/Release, request: "ReleaseRequest{}"', 'demo.v1.Payments/Refund, request: "RefundRequest{}"')
    ],
    "AM054": [
        ("{name: Transfer, guarded: true}", "{name: Transfer, guarded: true}, {name: Reverse, guarded: true}"),
        (", {name: Transfer, guarded: true}", ""),
    ],
    "AM055": [
        ('demo.v1.Payments/Credit, request: "ChargeRequest{}"', 'demo.v1.Payments/Refund, request: "RefundRequest{}"')
    ],
    "AM056": [('\n  compensate: {call: demo.v1.Stock/Release, request: "ReleaseRequest{}"}', "")],
    "AM057": [('"TransferRequest{}"}', '"TransferRequest{}", accept: [AM057]}')],
    "AM058": [("- name: transfer\n", "- name: transfer\n  accept: [AM058]\n")],
    "AM059": [
        (
            "afterPivot:",
            '  - {name: book, call: demo.v1.Shipping/Book, request: "BookRequest{}", pivot: true}\nafterPivot:',
        ),
        ('afterPivot:\n  - {name: give_back, call: demo.v1.Stock/Release, request: "ReleaseRequest{}"}\n', ""),
    ],
    "AM060": [("input.order_id", "input.order_id}")],
    "AM062": [("input.pieces", "string(input.pieces)")],
    "AM063": [("ChargeRequest", "BookRequest")],
    "AM064": [('available)}", after: []', 'available)}", after: [hold]'), ("hold.available", "input.pieces")],
    "AM066": [
        ("deliver_at: input.deliver_at", "?deliver_at: input.?deliver_at"),
        ("input.deliver_at", "input.?deliver_at.value()"),
    ],
    "AM067": [(", ?iban: input.?iban", ""), ("?card: input.?coupon", "?card: input.?card")],
    "AM069": [("3000000000", "2147483647"), ("3000000000", "-2147483648")],
    "AM070": [
        ("charge.payment_id", "has(charge.payment_id) ? charge.payment_id : ''"),
        ("note: charge.payment_id", "?note: charge.?payment_id"),
    ],
    "AM072": [("'o-('", "'o-[(]'")],
    "AM073": [("?payload: input.extra.?payload", "?extra: input.?extra")],
    "AM074": [("note: 'fragile'", "note: 'fragile', label: 'x'")],
    "AM076": [("duration('2 days')", way) for way in ("duration('90s')", "duration('1h30m')")],
    "AM080": [
        (
            "name: hasty, namespace: shop}\nspec: {selector: {participants: [demo.v1.Shipping]",
            "name: hasty, namespace: shop}\nspec: {selector: {participants: [demo.v1.Stock]",
        )
    ],
    "AM081": [("deadline: 5s", "deadline: 8s700ms")],
    "AM083": [("steps:", "deadline: 60s\nsteps:")],
    "AM084": [("deadline: 2h", "deadline: 5m")],
    "AM085": [("barrierRetention: 1d", "barrierRetention: 30d")],
    "AM093": [("{name: hall, consumes", f"{{name: hall, publishes: [{EVENT}.SeatHeld], consumes")],
    "AM094": [(f"[{EVENT}.TicketOrdered]}}", f"[{EVENT}.TicketOrdered, {EVENT}.PaymentAsked]}}")],
    "AM096": [("by: box-office", "by: hall")],
    "AM097": [
        (
            f"publishes: [{EVENT}.SeatHeld]}}",
            f"publishes: [{EVENT}.SeatHeld], consumes: [{EVENT}.TicketOrdered]}}",
        )
    ],
    "AM098": [("ends: Well}\n", f"ends: Well}}\n    - {{event: {EVENT}.SeatTaken, ends: Well}}\n")],
    "AM099": [(f"    - {{event: {EVENT}.SeatHeld, ends: Well}}\n", "")],
    "AM100": [(f"[{EVENT}.TicketOrdered, {EVENT}.SeatHeld]", f"[{EVENT}.TicketOrdered]")],
    "AM101": [(f"- event: {EVENT}.SeatHeld\n", f"- event: {EVENT}.SeatHeld\n      ends: Well\n")],
    "AM102": [
        (
            f"""      effect: false
      answers: [{{by: hall, with: [{EVENT}.SeatHeld, {EVENT}.SeatTaken], within: 5s}}]
    - {{event: {EVENT}.SeatHeld, ends: Well}}
    - event: {EVENT}.SeatTaken
""",
            f"""      effect: false
      atMost: 3
      answers: [{{by: hall, with: [{EVENT}.SeatHeld, {EVENT}.SeatTaken], within: 5s}}]
    - {{event: {EVENT}.SeatHeld, ends: Well}}
    - event: {EVENT}.SeatTaken
      atMost: 3
""",
        )
    ],
    "AM103": [
        (f"- event: {EVENT}.SeatHeld\n", f"- event: {EVENT}.SeatHeld\n      effect: false\n"),
        (
            f"""{EVENT}.SeatTaken]
      consumes: [{EVENT}.TicketOrdered, {EVENT}.TicketRefused]
  events:
    - event: {EVENT}.TicketOrdered
      effect: false
      answers: [{{by: hall, with: [{EVENT}.SeatHeld, {EVENT}.SeatTaken], within: 5s}}]
    - event: {EVENT}.SeatHeld
""",
            f"""{EVENT}.SeatTaken, {EVENT}.SeatFreed]
      consumes: [{EVENT}.TicketOrdered, {EVENT}.TicketRefused]
  events:
    - event: {EVENT}.SeatFreed
    - event: {EVENT}.TicketOrdered
      effect: false
      answers: [{{by: hall, with: [{EVENT}.SeatHeld, {EVENT}.SeatTaken], within: 5s}}]
    - event: {EVENT}.SeatHeld
      undoneBy: {{event: {EVENT}.SeatFreed, within: 5s}}
""",
        ),
    ],
    "AM104": [(f"with: [{EVENT}.SeatHeld]", f"with: [{EVENT}.SeatHeld, {EVENT}.SeatTaken]")],
    "AM106": [("channel: WEB", f"channel: CHANNEL_{way}") for way in ("WEB", "UNSPECIFIED")],
    "AM107": [(f"      answers: [{{by: hall, with: [{EVENT}.SeatTaken], within: 5s}}]\n", "")],
}
"""For each code, what its hint tells to write: one edit of the example for each way that it names. Where a hint asks
"Did you mean", the edit is the name that it gives."""
ADVICE = {
    "AM001": "where the text stops being YAML is all that can be told",
    "AM024": "whoever calls it has to decide what is called instead",
    "AM025": "the service has to be asked",
    "AM026": "the contract has to be made anew",
    "AM027": "one of the two contracts has to be changed",
    "AM030": "which unary method is for its author to say",
    "AM065": "how to make it simpler is for its author to say",
    "AM068": "whether the number fits is for its author to know",
    "AM071": "the contract has to be changed",
    "AM075": "the contract has to be changed",
    "AM082": "the retries of other services have to be changed",
    "AM091": "the contract has to be changed",
    "AM092": "the contract has to be changed",
    "AM105": "which part to take away is for its author to say",
    "AM108": "who decides is for its authors to say",
}
"""Codes whose hint cannot be done in the text, and why."""


def test_every_code_has_its_edits_or_a_reason_why_not() -> None:
    """What is in neither list asks "Did you mean", which the test below makes sure of."""
    assert set(EDITS) | set(ADVICE) <= set(ALL)
    assert not set(EDITS) & set(ADVICE)


@pytest.mark.parametrize("code", sorted(set(ALL) - set(ADVICE)))
def test_what_the_hint_says_mends_the_example(reference: ModuleType, code: str) -> None:
    example = next(example for example in reference.examples() if example.code == code)
    before = reference.run(example.wrong, unknown=example.unknown).findings
    finding = next(finding for finding in before if finding.code == code)
    meant = INSTEAD.search(finding.hint)
    written = re.findall(r"`([^`]+)`", finding.message)
    assert code in EDITS or meant is not None, finding.hint
    edits = EDITS[code] if meant is None else [(get_close_matches(meant[1], written, n=1)[0], meant[1])]
    for old, new in edits:
        assert old in example.wrong, old
        mended = example.wrong.replace(old, new, -1 if meant is not None and code in NAMED_OFTEN else 1)
        left = reference.run(mended, unknown=example.unknown).findings
        assert [one for one in left if one.is_error or one.code == code] == [], mended


@pytest.mark.parametrize("code", sorted(EDITS))
def test_every_way_that_a_hint_writes_out_is_among_the_edits(reference: ModuleType, code: str) -> None:
    example = next(example for example in reference.examples() if example.code == code)
    findings = reference.run(example.wrong, unknown=example.unknown).findings
    hint = next(finding.hint for finding in findings if finding.code == code)
    hint = hint.replace("field", "payment_id").replace("? ... : ...", "? charge.payment_id : ''")
    results = " ".join([*(new for _, new in EDITS[code]), example.wrong])
    ways = [way for way in re.findall(r"`([^`]+)`", hint) if re.fullmatch(r"[?\w.: ()\[\]']+", way)]
    assert [way for way in ways if way.rstrip(": .").replace("...", "") not in results] == []
