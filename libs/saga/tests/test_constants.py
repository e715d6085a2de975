"""Parts of expressions that fail whatever a run brings are found while checking, and no others."""

from collections.abc import Callable

import pytest
from amends_saga.check import CheckResult

Check = Callable[..., CheckResult]


def findings(demo: Check, grams: str) -> list[tuple[str, str]]:
    """Return the code and the underlined text of each finding about a request that computes a number."""
    request = f"BookRequest{{grams: {grams}}}"
    found = demo(f'- name: book\n  call: demo.v1.Shipping/Book\n  request: "{request}"\n').findings
    return [
        (one.code, one.place.excerpt[one.place.column - 1 :][: one.place.width]) for one in found if one.code != "AM068"
    ]


@pytest.mark.parametrize(
    ("grams", "part"),
    [
        ("1 / 0", "/"),
        ("size('x') / 0", "/"),
        ("input.pieces / 0", "/"),
        ("input.pieces % (1 - 1)", "%"),
        ("9223372036854775807 + 1", "+"),
        ("[][0]", "["),
        ("[1, 2][2]", "["),
        ("[input.pieces, 2][2]", "["),
        ("input.lines[-1].quantity", "["),
        ("{'a': 1}['b']", "["),
        ("{'a': 1, 'b': input.pieces}['c']", "["),
        ("int('x')", "int"),
        ("int(1e300)", "int"),
        ("int(uint('-1'))", "uint"),
        ("int(double('x'))", "double"),
        ("bool('maybe') ? 1 : 2", "bool"),
        ("duration('2 days').getSeconds()", "duration"),
        ("timestamp('2026-02-30T00:00:00Z').getSeconds()", "timestamp"),
        ("input.pieces > 0 ? duration('soon').getSeconds() : 0", "duration"),
        ("true || 1 / 0 > 0 ? 1 : 2", "/"),
        ("optional.none().value()", "value"),
        ("int(dyn(1) + dyn('a'))", "+"),
        ("size(string(b'\\\\xff'))", "string"),
        ("[1, 2].map(x, x / 0)[0]", "/"),
        ("input.lines.map(line, line.quantity / 0)[0]", "/"),
    ],
)
def test_a_part_that_always_fails_is_an_error_at_its_place(demo: Check, grams: str, part: str) -> None:
    assert findings(demo, grams) == [("AM076", part)]


@pytest.mark.parametrize(
    "grams",
    [
        "input.pieces / 2",
        "1 / input.pieces",
        "int(1.0 / 2.0)",
        "input.lines[0].quantity",
        "[1, input.pieces][1]",
        "[1, 2][input.pieces]",
        "{'a': 1}['a']",
        "{'a': input.pieces}['a']",
        "{'a': 1}[input.order_id]",
        "{input.order_id: 1}['a']",
        "has({'a': 1}.b) ? 1 : 2",
        "[][?0].orValue(0)",
        "optional.none().orValue(1)",
        "int('12')",
        "int(input.order_id)",
        "duration('90s').getSeconds()",
        "duration(input.order_id).getSeconds()",
        "(saga.started_at + duration('1h30m')).getSeconds()",
        "timestamp('2026-01-31T12:00:00Z').getSeconds()",
        "[1, 2].map(x, x * 2)[0]",
        "[1, 2].exists(x, x == 3) ? 1 : 2",
        "input.lines.map(line, line.quantity / 2)[0]",
        "type(1) == int ? 1 : 0",
    ],
)
def test_a_part_that_may_have_a_value_is_accepted(demo: Check, grams: str) -> None:
    assert findings(demo, grams) == []


def test_a_malformed_pattern_is_told_once(demo: Check) -> None:
    assert findings(demo, "'abc'.matches('(') ? 1 : 2") == [("AM072", "'")]
