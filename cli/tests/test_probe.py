"""`amends probe`: right services are told from naive ones, case by case, and nothing passes that was not shown."""

import json
from pathlib import Path

import pytest
from amends_contracts import descriptor_set
from amends_testkit.answers import ScriptedAnswer
from amends_testkit.participant import FakeParticipant

from .naive import SERVICE, Flaw, Ledger, contract, serving

EACH_BREAKS = {
    Flaw.FORGETS_THAT_IT_ANSWERED: "the action again returns the stored response",
    Flaw.ANSWERS_ANEW: "the action again returns the stored response",
    Flaw.CHECKS_THEN_ACTS: "8 actions at once have one effect",
    Flaw.KEY_IS_ALL: "another request under its key is refused",
    Flaw.REFUNDS_NOTHING: "a compensation without its action has no effect",
    Flaw.BELIEVES_THE_CALLER: "a compensation of a forgotten action is refused",
    Flaw.LEAVES_NO_MARK: "an action after its null compensation is refused",
    Flaw.FORGETS_WHAT_IT_UNDID: "an action after it was undone is refused",
    Flaw.COMMITS_LATE: "action and compensation at once leave nothing",
    Flaw.VOIDS_NOTHING: "a void stops an action that never ran",
    Flaw.VOIDS_WHAT_RAN: "a void tells the response of an action that ran",
    Flaw.VOIDS_ACTIONS_ONLY: "a void stops a compensation that never ran",
    Flaw.HIDES_ERRORS: "every answer carries amends-barrier: 1",
}
ROWS = 12
PAYMENTS = "shop.payments.v1.PaymentService"


@pytest.fixture
def contracts(tmp_path: Path) -> str:
    path = tmp_path / "naive.binpb"
    path.write_bytes(contract().SerializeToString())
    return str(path)


@pytest.fixture
def probe(run, contracts):
    """Probes a ledger; the exit code, and for each question its result."""

    async def ask(ledger: Ledger, *options: str, observe: bool = True) -> tuple[int, dict[str, str]]:
        seen = ("--observe", f"{SERVICE}/Balance") if observe else ()
        named = ("--descriptors", contracts, "--compensated-by", "Refund", "-o", "json")
        async with serving(ledger) as target:
            result = await run("probe", target, f"{SERVICE}/Charge", *named, *seen, *options)
        rows = json.loads(result.out)
        assert len(rows) == ROWS, result
        return result.code, {row["question"]: row["result"] for row in rows}

    return ask


@pytest.mark.parametrize("by_order", [False, True], ids=["read of all effects", "read of one order"])
async def test_a_right_service_holds_every_promise(probe, by_order: bool) -> None:
    code, results = await probe(Ledger(by_order=by_order))
    assert (code, set(results.values())) == (0, {"held"}), results


@pytest.mark.parametrize(("flaw", "question"), EACH_BREAKS.items())
async def test_a_naive_service_breaks_one_promise_and_exactly_that_is_told(probe, flaw: Flaw, question: str) -> None:
    code, results = await probe(Ledger(flaw))
    assert [each for each, result in results.items() if result != "held"] == [question], results
    assert (code, results[question]) == (1, "not held")


def test_every_question_has_a_naive_service() -> None:
    from amends_cli.probe.cases import CASES

    asked = {question for _, question, _ in CASES} | {"every answer carries amends-barrier: 1"}
    assert asked == set(EACH_BREAKS.values())
    assert len(asked) == ROWS


@pytest.mark.parametrize("flaw", [Flaw.FORGETS_THAT_IT_ANSWERED, Flaw.REFUNDS_NOTHING, Flaw.CHECKS_THEN_ACTS])
async def test_a_read_of_one_order_finds_wrong_effects_too(probe, flaw: Flaw) -> None:
    code, results = await probe(Ledger(flaw, by_order=True))
    assert (code, results[EACH_BREAKS[flaw]]) == (1, "not held")


async def test_a_double_effect_is_found_though_undoing_sweeps_it_away(probe) -> None:
    flaw = Flaw.CHECKS_THEN_ACTS
    code, results = await probe(Ledger(flaw, by_order=True, by_state=True))
    assert (code, results[EACH_BREAKS[flaw]]) == (1, "not held")
    assert (await probe(Ledger(by_order=True, by_state=True)))[0] == 0


async def test_requests_without_a_text_are_told_apart_by_their_numbers(run, tmp_path: Path) -> None:
    (tmp_path / "numbers.binpb").write_bytes(contract(numbers=True).SerializeToString())
    named = ("--descriptors", "numbers.binpb", "--compensated-by", "Refund", "--observe", f"{SERVICE}/Balance")
    for ledger, code in ((Ledger(by_order=True), 0), (Ledger(Flaw.KEY_IS_ALL, by_order=True), 1)):
        async with serving(ledger) as target:
            result = await run("probe", target, f"{SERVICE}/Charge", *named)
        assert result.code == code, result


async def test_requests_that_cannot_differ_show_no_reuse_of_a_key(run, tmp_path: Path) -> None:
    file = contract()
    file.file[0].message_type[0].ClearField("field")
    (tmp_path / "empty.binpb").write_bytes(file.SerializeToString())
    named = ("--descriptors", "empty.binpb", "--compensated-by", "Refund", "--observe", f"{SERVICE}/Balance")
    async with serving(Ledger()) as target:
        result = await run("probe", target, f"{SERVICE}/Charge", *named, "-o", "json")
    results = {row["question"]: row["result"] for row in json.loads(result.out)}
    assert result.code == 1
    assert results.pop("another request under its key is refused") == "not shown"
    assert set(results.values()) == {"held"}


async def test_details_that_are_no_status_are_no_reason(probe) -> None:
    code, results = await probe(Ledger(details=b"\xff\xff\xff\xff"))
    assert code == 1
    assert results["an action after its null compensation is refused"] == "not held"
    assert results["a void tells the response of an action that ran"] == "held"


async def test_without_a_read_nothing_is_held_but_the_trailer(probe) -> None:
    code, results = await probe(Ledger(), observe=False)
    assert code == 1
    assert results.pop("every answer carries amends-barrier: 1") == "held"
    assert set(results.values()) == {"answers right, effects not observed"}


@pytest.mark.parametrize("flaw", [Flaw.SEES_NOTHING, Flaw.SEES_A_CLOCK])
async def test_a_read_that_tells_nothing_of_effects_shows_nothing(probe, flaw: Flaw) -> None:
    code, results = await probe(Ledger(flaw))
    assert code == 1
    assert results.pop("every answer carries amends-barrier: 1") == "held"
    assert set(results.values()) == {"not shown"}


async def test_an_action_that_never_answers_ok_shows_nothing(probe) -> None:
    code, results = await probe(Ledger(Flaw.DECLINES))
    assert code == 1
    assert results.pop("every answer carries amends-barrier: 1") == "held"
    assert set(results.values()) == {"not shown"}


@pytest.mark.parametrize("known", [True, False])
async def test_a_service_that_is_away_is_said_to_be_away(run, contracts, known: bool) -> None:
    named = ("--descriptors", contracts) if known else ()
    named = (*named, "--compensated-by", "Refund", "--timeout", "2", "-o", "json")
    result = await run("probe", "127.0.0.1:9", f"{SERVICE}/Charge", *named)
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith("error: nothing listens at 127.0.0.1:9\n")


async def test_the_table_says_what_was_seen_instead(run, contracts) -> None:
    named = ("--descriptors", contracts, "--compensated-by", "Refund", "--observe", f"{SERVICE}/Balance")
    async with serving(Ledger(Flaw.LEAVES_NO_MARK)) as target:
        result = await run("probe", target, f"{SERVICE}/Charge", *named)
    (line,) = (line for line in result.out.splitlines() if "not held" in line)
    assert line.split()[0] == "3"
    assert line.endswith("the late action answered OK, not ABORTED STEP_FENCED")
    assert result.out.splitlines()[-1] == f"{ROWS - 1} of {ROWS} held"


async def test_contracts_come_by_reflection_and_say_what_undoes(run) -> None:
    async with await FakeParticipant.start(descriptor_set(), [PAYMENTS]) as payments:
        payments.script("Charge", ScriptedAnswer.ok(payment_id="p-1"))
        result = await run("probe", payments.target, f"{PAYMENTS}/Charge", "-o", "json")
    assert payments.calls("Refund")
    assert {row["result"] for row in json.loads(result.out)} >= {"answers right, effects not observed"}


async def test_requests_come_from_files_with_the_text_that_differs(run, contracts, tmp_path: Path) -> None:
    (tmp_path / "charge.json").write_text('{"id": "order ${unique}"}')
    ledger = Ledger(by_order=True)
    files = [
        part
        for option in ("--request", "--compensation-request", "--observe-request")
        for part in (option, "charge.json")
    ]
    named = ("--descriptors", contracts, "--compensated-by", "Refund", "--observe", f"{SERVICE}/Balance")
    async with serving(ledger) as target:
        result = await run("probe", target, f"{SERVICE}/Charge", *named, *files)
    assert result.code == 0, result
    assert all(request[2:].startswith(b"order probe-") for request in ledger.balances)


CHARGE = f"{SERVICE}/Charge"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([CHARGE], "--compensated-by"),
        (["Charge"], "is no SERVICE/METHOD"),
        ([f"{SERVICE}/Chargee", "--compensated-by", "Refund"], "Did you mean Charge?"),
        (["naive.v1.Legder/Charge", "--compensated-by", "Refund"], "know no service naive.v1.Legder"),
        ([CHARGE, "--compensated-by", "Refnd"], "Did you mean Refund?"),
        ([CHARGE, "--compensated-by", "Refund", "--request", "same.json"], "no ${unique}"),
        ([CHARGE, "--compensated-by", "Refund", "--request", "broken.json"], "broken.json:1:2: not JSON"),
        ([CHARGE, "--compensated-by", "Refund", "--request", "wrong.json"], "is no naive.v1.Call"),
        ([CHARGE, "--compensated-by", "Refund", "--request", "nowhere.json"], "nowhere.json cannot be read"),
        ([CHARGE, "--compensated-by", "Refund", "--observe-request", "same.json"], "needs --observe"),
        ([CHARGE, "--compensated-by", "other.v1.Ledger/Refund"], "is of another service"),
        ([CHARGE, "--compensated-by", "Refund", "--timeout", "nan"], "--timeout"),
        ([CHARGE, "--compensated-by", "Refund", "--timeout", "0"], "--timeout"),
        ([CHARGE, "--compensated-by", "Refund", "--timeout", "1e30"], "--timeout"),
    ],
)
async def test_wrong_use_is_said_before_anything_is_called(
    run, contracts, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "same.json").write_text('{"id": "always"}')
    (tmp_path / "broken.json").write_text("{id")
    (tmp_path / "wrong.json").write_text('{"order": "${unique}"}')
    ledger = Ledger()
    async with serving(ledger) as target:
        result = await run("probe", target, *arguments, "--descriptors", contracts)
    assert (result.code, ledger.rows) == (2, {})
    assert said in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file.dependency.append("nowhere.proto"), "the contracts cannot be used"),
        (lambda file: setattr(file.service[0].method[0], "input_type", ".no.Such"), "the contracts cannot be used"),
        (lambda file: setattr(file.service[0].method[0], "server_streaming", True), "Charge is a stream"),
    ],
)
async def test_a_contract_that_cannot_serve_is_wrong_use(run, tmp_path: Path, change, said: str) -> None:
    files = contract()
    change(files.file[0])
    (tmp_path / "broken.binpb").write_bytes(files.SerializeToString())
    undone = ("--compensated-by", "Refund")
    async with serving(Ledger()) as target:
        result = await run("probe", target, CHARGE, *undone, "--descriptors", "broken.binpb")
    assert result.code == 2
    assert said in result.err
