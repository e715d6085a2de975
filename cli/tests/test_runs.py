"""`amends start`, `watch`, `get`, `resolve`, `cancel`: what is sent, what is shown, and how it exits."""

import asyncio
import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from amends_testkit.answers import ScriptedAnswer

from amends.saga.v1 import definition_service_pb2 as definitions
from amends.saga.v1 import run_pb2
from amends.saga.v1 import run_service_pb2 as api

RUN = "018f0000-0000-7000-8000-000000000001"
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def a_run(state: "run_pb2.RunState", **fields) -> run_pb2.Run:
    known = {"run_id": RUN, "namespace": "shop", "saga": "pay", "idempotency_key": "k-1"}
    return run_pb2.Run(state=state, **(known | fields))


def an_event(seq: int, kind: str, **fields) -> run_pb2.RunEvent:
    event = run_pb2.RunEvent(run_id=RUN, seq=seq, kind=kind, **fields)
    event.at.FromDatetime(BEGAN + timedelta(milliseconds=250 * (seq - 1)))
    return event


COMPLETED = a_run(run_pb2.RUN_STATE_COMPLETED, message="COMPLETED")
COMPENSATED = a_run(run_pb2.RUN_STATE_COMPENSATED, message="COMPENSATED: charge was rejected: card declined")
PARKED = a_run(
    run_pb2.RUN_STATE_PARKED,
    message="PARKED: charge: dispute",
    parked=run_pb2.Parked(
        reason="CHARGE_DISPUTED", message="the refund was refused", step="charge", seq=7, resolutions=["retry", "skip"]
    ),
    steps=[run_pb2.StepStatus(name="charge", state=run_pb2.STEP_STATE_COMPENSATING, attempts=2)],
)
TIMELINE = [
    api.WatchRunResponse(event=an_event(1, "STARTED"), run=a_run(run_pb2.RUN_STATE_RUNNING)),
    api.WatchRunResponse(
        event=an_event(2, "ANSWERED", step="charge", operation=run_pb2.OPERATION_ACTION, outcome="ok", code="OK")
    ),
    api.WatchRunResponse(
        event=an_event(
            3,
            "ANSWERED",
            step="charge",
            operation=run_pb2.OPERATION_COMPENSATION,
            outcome="rejected",
            code="FAILED_PRECONDITION",
            message="[no]",
        )
    ),
    api.WatchRunResponse(event=an_event(4, "RESOLVED", step="charge", actor="grace", message="retry: closed")),
]


async def test_a_started_run_is_sent_as_it_was_given(amends, orchestrator) -> None:
    started = a_run(run_pb2.RUN_STATE_RUNNING)
    orchestrator.script("StartRun", ScriptedAnswer.ok(api.StartRunResponse(run=started, created=True)))
    result = await amends("start", "pay", "-n", "shop", "--key", "k-1", "--input", '{"orderId": "o-1"}')
    request = orchestrator.calls("StartRun")[0].request
    assert (request.namespace, request.saga, request.idempotency_key, request.wait) == ("shop", "pay", "k-1", False)
    assert request.json_text == '{"orderId": "o-1"}'
    assert result.code == 0
    assert result.out == f"{RUN}  RUNNING\n"


async def test_the_input_comes_from_a_file_or_standard_input_too(
    amends, orchestrator, tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "input.json").write_text('{"orderId": "o-2"}')
    await amends("start", "pay", "-i", "@input.json")
    monkeypatch.setattr("sys.stdin", io.StringIO('{"orderId": "o-3"}'))
    await amends("start", "pay", "-i", "-")
    requests = [call.request for call in orchestrator.calls("StartRun")]
    assert [json.loads(request.json_text)["orderId"] for request in requests] == ["o-2", "o-3"]
    assert len({request.idempotency_key for request in requests}) == 2


NO_JSON = ["{", "[1]", "@nowhere.json", '{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}', "\udcff", "[" * 3000]
NO_JSON += ['{"a": 1, "a": 2}', '{"a":' * 100 + "1" + "}" * 100, '{"a": 1' + "0" * 5000 + "}"]


@pytest.mark.parametrize("given", NO_JSON)
async def test_an_input_that_is_no_json_object_is_wrong_use(amends, orchestrator, given: str) -> None:
    result = await amends("start", "pay", "-i", given)
    assert result.code == 2
    assert "--input" in result.err or "argument 4 is no UTF-8 text" in result.err
    assert "Traceback" not in result.err
    assert orchestrator.received == []


async def test_every_digit_of_an_input_is_sent(amends, orchestrator) -> None:
    text = '{"account": 9007199254740993, "rate": 0.10000000000000000555}'
    assert (await amends("start", "pay", "-i", text)).code == 0
    assert orchestrator.calls("StartRun")[0].request.json_text == text


async def test_payloads_are_shown_with_their_digits_and_in_their_order(amends, orchestrator) -> None:
    step = run_pb2.StepStatus(name="charge", state=run_pb2.STEP_STATE_DONE, response_json='{"z": 1, "a": 2}')
    run = a_run(run_pb2.RUN_STATE_COMPLETED, steps=[step], input_json='{"count": 1, "big": "9007199254740993"}')
    orchestrator.script("GetRun", ScriptedAnswer.ok(api.GetRunResponse(run=run)))
    result = await amends("get", RUN, "-o", "json")
    shown = json.loads(result.out)
    assert (shown["input"], shown["steps"][0]["response"]) == (
        {"count": 1, "big": "9007199254740993"},
        {"z": 1, "a": 2},
    )
    assert "1.0" not in result.out
    assert list(shown["steps"][0]["response"]) == ["z", "a"]
    assert orchestrator.calls("GetRun")[0].request.payloads == api.PAYLOADS_TEXT


async def test_one_payload_is_printed_as_it_arrives(amends, orchestrator) -> None:
    pieces = [api.ReadPayloadResponse(text=text) for text in ('{"note": "', "long", '"}')]
    orchestrator.script("ReadPayload", ScriptedAnswer.streamed(*pieces))
    assert (await amends("get", RUN, "--payload", "charge")).out == '{"note": "long"}\n'
    await amends("get", RUN, "--payload", "input")
    assert [call.request.step for call in orchestrator.calls("ReadPayload")] == ["charge", ""]


async def test_what_is_asked_for_and_not_decided_is_not_told_as_done(amends, orchestrator) -> None:
    running = a_run(run_pb2.RUN_STATE_RUNNING, message="RUNNING")
    orchestrator.script("CancelRun", ScriptedAnswer.ok(api.CancelRunResponse(run=running, pending=True)))
    result = await amends("cancel", RUN, "--reason", "changed her mind")
    assert "not yet decided" in result.err
    orchestrator.script("CancelRun", ScriptedAnswer.ok(api.CancelRunResponse(run=running)))
    assert "decided" not in (await amends("cancel", RUN, "--reason", "changed her mind")).err


@pytest.mark.parametrize(
    ("ended", "code"),
    [(COMPLETED, 0), (COMPENSATED, 4), (PARKED, 5), (a_run(run_pb2.RUN_STATE_RUNNING), 6)],
)
async def test_waiting_exits_by_how_the_run_stands(amends, orchestrator, ended, code: int) -> None:
    orchestrator.script("StartRun", ScriptedAnswer.ok(api.StartRunResponse(run=ended, created=True)))
    assert (await amends("start", "pay", "--wait", "--timeout", "5")).code == code
    request = orchestrator.calls("StartRun")[0].request
    assert request.wait
    assert request.wait_timeout.ToTimedelta() == timedelta(seconds=5)


async def test_a_run_that_was_there_already_is_said(amends, orchestrator) -> None:
    orchestrator.script("StartRun", ScriptedAnswer.ok(api.StartRunResponse(run=COMPLETED)))
    assert "was there already" in (await amends("start", "pay", "--key", "k-1")).err


async def test_a_timeline_tells_each_record_once_and_how_it_ended(amends, orchestrator) -> None:
    orchestrator.script("WatchRun", ScriptedAnswer.streamed(*TIMELINE, api.WatchRunResponse(run=COMPENSATED)))
    result = await amends("watch", RUN)
    lines = [line.split() for line in result.out.splitlines()]
    assert lines == [
        ["+0.000s", "1", "started"],
        ["+0.250s", "2", "answered", "charge", "ok"],
        ["+0.500s", "3", "answered", "charge", "compensation", "rejected", "FAILED_PRECONDITION", "[no]"],
        ["+0.750s", "4", "resolved", "charge", "retry:", "closed", "by", "grace"],
        ["COMPENSATED:", "charge", "was", "rejected:", "card", "declined"],
    ]
    assert result.code == 4


async def test_a_timeline_as_json_is_one_record_a_line(amends, orchestrator) -> None:
    orchestrator.script("WatchRun", ScriptedAnswer.streamed(*TIMELINE, api.WatchRunResponse(run=COMPLETED)))
    result = await amends("watch", RUN, "-o", "json")
    assert [json.loads(line)["kind"] for line in result.out.splitlines()] == [
        "STARTED",
        "ANSWERED",
        "ANSWERED",
        "RESOLVED",
    ]
    assert result.code == 0


async def test_a_timeline_goes_on_at_another_replica_without_repeating_itself(amends, orchestrator) -> None:
    gone = replace(ScriptedAnswer.streamed(*TIMELINE[:2]), code=grpc.StatusCode.UNAVAILABLE)
    rest = ScriptedAnswer.streamed(*TIMELINE[2:], api.WatchRunResponse(run=COMPLETED))
    orchestrator.script("WatchRun", gone, rest)
    result = await amends("watch", RUN)
    assert [call.request.after_seq for call in orchestrator.calls("WatchRun")] == [0, 2]
    assert [line.split()[1] for line in result.out.splitlines()[:4]] == ["1", "2", "3", "4"]
    assert result.code == 0


async def test_a_run_that_takes_longer_than_one_wants_to_watch_is_a_failure(amends, orchestrator) -> None:
    orchestrator.script("WatchRun", ScriptedAnswer.streamed(*TIMELINE).once(asyncio.Event()))
    result = await amends("watch", RUN, "--timeout", "300ms")
    assert result.code == 6
    assert "has not ended within 300ms" in result.err


async def test_a_parked_run_says_what_can_be_done(amends, orchestrator) -> None:
    orchestrator.script("WatchRun", ScriptedAnswer.streamed(TIMELINE[0], api.WatchRunResponse(run=PARKED)))
    orchestrator.script("GetRun", ScriptedAnswer.ok(api.GetRunResponse(run=PARKED)))
    result = await amends("watch", RUN, "--until-parked")
    assert "charge is stuck: the refund was refused (CHARGE_DISPUTED)" in result.out
    assert f"amends resolve {RUN} retry --reason" in result.out
    assert result.code == 5


async def test_a_script_that_watches_a_parked_run_does_not_wait_for_a_person(amends, orchestrator) -> None:
    forever = ScriptedAnswer.streamed(TIMELINE[0], api.WatchRunResponse(run=PARKED)).once(asyncio.Event())
    orchestrator.script("WatchRun", forever)
    orchestrator.script("GetRun", ScriptedAnswer.ok(api.GetRunResponse(run=PARKED)))
    result = await amends("watch", RUN)
    assert result.code == 5
    assert result.out.count(f"amends resolve {RUN}") == 2


async def test_a_run_that_was_parked_earlier_is_watched_to_its_end(amends, orchestrator) -> None:
    rest = api.WatchRunResponse(event=an_event(5, "ENDED"), run=COMPLETED)
    orchestrator.script("WatchRun", ScriptedAnswer.streamed(TIMELINE[0], api.WatchRunResponse(run=PARKED), rest))
    orchestrator.script("GetRun", ScriptedAnswer.ok(api.GetRunResponse(run=COMPLETED)))
    result = await amends("watch", RUN)
    assert result.code == 0
    assert "amends resolve" not in result.out


async def test_on_a_terminal_a_parked_run_is_said_to_wait_for_a_person(amends, orchestrator, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    rest = api.WatchRunResponse(event=an_event(5, "ENDED"), run=COMPLETED)
    orchestrator.script("WatchRun", ScriptedAnswer.streamed(TIMELINE[0], api.WatchRunResponse(run=PARKED), rest))
    orchestrator.script("GetRun", ScriptedAnswer.ok(api.GetRunResponse(run=PARKED)))
    result = await amends("watch", RUN)
    assert "waiting for a person's decision; Ctrl-C stops watching" in result.err
    assert result.code == 0


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    ],
)
async def test_a_timeline_goes_on_however_a_proxy_ends_it(amends, orchestrator, code) -> None:
    gone = replace(ScriptedAnswer.streamed(*TIMELINE[:2]), code=code)
    orchestrator.script("WatchRun", gone, ScriptedAnswer.streamed(*TIMELINE[2:], api.WatchRunResponse(run=COMPLETED)))
    result = await amends("watch", RUN)
    assert [line.split()[1] for line in result.out.splitlines()[:4]] == ["1", "2", "3", "4"]
    assert result.err.count("reconnecting") == 1
    assert result.code == 0


async def test_a_refusal_in_the_middle_of_a_timeline_is_believed(amends, orchestrator) -> None:
    refused = replace(ScriptedAnswer.refused(grpc.StatusCode.INTERNAL, "JOURNAL_DAMAGED"), stream=(TIMELINE[0],))
    orchestrator.script("WatchRun", refused)
    result = await amends("watch", RUN)
    assert result.code == 1
    assert "JOURNAL_DAMAGED" in result.err


async def test_starting_with_watch_follows_until_the_run_is_parked(amends, orchestrator) -> None:
    started = api.StartRunResponse(run=a_run(run_pb2.RUN_STATE_RUNNING), created=True)
    orchestrator.script("StartRun", ScriptedAnswer.ok(started))
    orchestrator.script("WatchRun", ScriptedAnswer.streamed(*TIMELINE, api.WatchRunResponse(run=PARKED)))
    orchestrator.script("GetRun", ScriptedAnswer.ok(api.GetRunResponse(run=PARKED)))
    result = await amends("start", "pay", "--watch")
    assert orchestrator.calls("WatchRun")[0].request.run_id == RUN
    assert result.out.count("PARKED") == 1
    assert result.code == 5


async def test_get_shows_the_steps(amends, orchestrator) -> None:
    orchestrator.script("GetRun", ScriptedAnswer.ok(api.GetRunResponse(run=PARKED)))
    out = (await amends("get", RUN)).out
    assert f"shop/pay {RUN}  key k-1" in out
    assert ["charge", "COMPENSATING", "2"] in [line.split() for line in out.splitlines()]
    assert json.loads((await amends("get", RUN, "-o", "json")).out)["parked"]["seq"] == "7"


@pytest.mark.parametrize(
    ("reason", "said"),
    [("CARD_DECLINED", "failure: charge answered FAILED_PRECONDITION CARD_DECLINED"), ("", "FAILED_PRECONDITION")],
)
async def test_get_shows_the_code_of_what_a_run_was_undone_for(amends, orchestrator, reason: str, said: str) -> None:
    failure = run_pb2.Failure(cause="REJECTED", step="charge", code="FAILED_PRECONDITION", reason=reason)
    run = a_run(run_pb2.RUN_STATE_COMPENSATED, failure=failure)
    orchestrator.script("GetRun", ScriptedAnswer.ok(api.GetRunResponse(run=run)))
    assert any(line.endswith(said) for line in (await amends("get", RUN)).out.splitlines())
    assert json.loads((await amends("get", RUN, "-o", "json")).out)["failure"]["code"] == "FAILED_PRECONDITION"


async def test_get_finds_a_run_by_its_key(amends, orchestrator) -> None:
    await amends("get", "--key", "k-1", "-n", "shop")
    request = orchestrator.calls("GetRun")[0].request
    assert (request.run_id, request.namespace, request.idempotency_key) == ("", "shop", "k-1")
    assert (await amends("get")).code == 2


async def test_list_reads_all_pages_up_to_the_limit(amends, orchestrator) -> None:
    first = api.ListRunsResponse(runs=[COMPLETED], next_page_token="next")
    orchestrator.script(
        "ListRuns", ScriptedAnswer.ok(first), ScriptedAnswer.ok(api.ListRunsResponse(runs=[COMPENSATED]))
    )
    result = await amends("list", "--state", "completed", "--state", "parked", "--saga", "pay", "--limit", "7")
    one, two = (call.request for call in orchestrator.calls("ListRuns"))
    assert list(one.states) == [run_pb2.RUN_STATE_COMPLETED, run_pb2.RUN_STATE_PARKED]
    assert (one.page_size, one.page_token, two.page_size, two.page_token) == (7, "", 6, "next")
    assert [line.split()[3] for line in result.out.splitlines()[1:]] == ["COMPLETED", "COMPENSATED"]


async def test_a_decision_is_about_the_record_that_is_there_now(amends, orchestrator) -> None:
    orchestrator.script("GetRun", ScriptedAnswer.ok(api.GetRunResponse(run=PARKED)))
    orchestrator.script("ResolveRun", ScriptedAnswer.ok(api.ResolveRunResponse(run=COMPENSATED)))
    result = await amends(
        *("resolve", RUN, "skip", "--reason", "closed", "--actor", "grace", "--effect", "none"),
        *("--result", '{"paymentId": "p-1"}'),
    )
    request = orchestrator.calls("ResolveRun")[0].request
    assert (request.resolution, request.expected_seq) == (api.RESOLUTION_SKIP, 7)
    assert (request.reason, request.actor, request.effect) == ("closed", "grace", api.EFFECT_NONE)
    assert json.loads(request.result_json) == {"paymentId": "p-1"}
    assert result.code == 0


async def test_a_decision_to_amend_names_the_amendment(amends, orchestrator) -> None:
    orchestrator.script("ResolveRun", ScriptedAnswer.ok(api.ResolveRunResponse(run=COMPENSATED)))
    result = await amends("resolve", RUN, "amend", "refund", "--reason", "closed", "--seq", "5")
    request = orchestrator.calls("ResolveRun")[0].request
    assert (request.resolution, request.amendment) == (api.RESOLUTION_AMEND, "refund")
    assert result.code == 0


@pytest.mark.parametrize("words", [("amend",), ("skip", "refund")])
async def test_amend_alone_takes_the_name_of_an_amendment_and_needs_one(amends, orchestrator, words) -> None:
    result = await amends("resolve", RUN, *words, "--reason", "closed", "--seq", "5")
    assert result.code == 2
    assert "amend needs the name of an amendment" in result.err
    assert orchestrator.calls("ResolveRun") == []


async def test_a_decision_about_a_given_record_reads_nothing_first(amends, orchestrator) -> None:
    await amends("resolve", RUN, "retry", "--reason", "closed", "--seq", "5")
    request = orchestrator.calls("ResolveRun")[0].request
    assert request.expected_seq == 5
    assert "@" in request.actor
    assert orchestrator.calls("GetRun") == []


async def test_a_decision_needs_a_reason(amends) -> None:
    result = await amends("resolve", RUN, "retry")
    assert result.code == 2
    assert "--reason" in result.err


async def test_a_decision_that_is_left_out_is_asked_for_in_one_line(amends, orchestrator) -> None:
    result = await amends("resolve", RUN)
    assert result.code == 2
    assert "Choose from: retry, skip, compensate, amend, park\n" in result.err
    assert orchestrator.calls("ResolveRun") == []


async def test_a_cancelled_run_is_asked_with_who_and_why(amends, orchestrator) -> None:
    orchestrator.script(
        "CancelRun", ScriptedAnswer.ok(api.CancelRunResponse(run=a_run(run_pb2.RUN_STATE_COMPENSATING)))
    )
    result = await amends("cancel", RUN, "--reason", "changed my mind", "--actor", "ada")
    request = orchestrator.calls("CancelRun")[0].request
    assert (request.run_id, request.reason, request.actor) == (RUN, "changed my mind", "ada")
    assert (result.code, result.out) == (0, f"{RUN}  COMPENSATING\n")


@pytest.mark.parametrize(
    ("code", "reason", "hint"),
    [
        (grpc.StatusCode.NOT_FOUND, "RUN_UNKNOWN", "`amends list` shows the runs"),
        (grpc.StatusCode.ABORTED, "STATE_CHANGED", "decide again"),
        (grpc.StatusCode.FAILED_PRECONDITION, "EFFECT_REQUIRED", "--effect happened"),
    ],
)
async def test_a_refusal_is_shown_with_its_reason_and_how_to_mend_it(amends, orchestrator, code, reason, hint) -> None:
    orchestrator.script("GetRun", ScriptedAnswer.refused(code, reason, "it is not so"))
    result = await amends("get", RUN)
    assert result.code == 1
    assert result.err.startswith(f"error: it is not so ({reason})\n")
    assert hint in result.err


@pytest.mark.parametrize(
    ("saga", "namespace", "hint"),
    [
        ("pya", "shop", "Did you mean `pay`?"),
        ("pay", "default", "add `-n shop`"),
        ("xyz", "shop", "`amends list sagas`"),
    ],
)
async def test_a_saga_that_is_not_there_is_named_with_the_one_that_was_meant(
    amends, orchestrator, saga: str, namespace: str, hint: str
) -> None:
    orchestrator.script("StartRun", ScriptedAnswer.refused(grpc.StatusCode.NOT_FOUND, "SAGA_UNKNOWN"))
    known = definitions.SagaInfo(namespace="shop", name="pay", ready=True)
    orchestrator.script("ListSagas", ScriptedAnswer.ok(definitions.ListSagasResponse(sagas=[known])))
    result = await amends("start", saga, "-n", namespace)
    assert result.code == 1
    assert f"there is no saga {namespace}/{saga}" in result.err
    assert hint in result.err


async def test_an_input_over_the_limit_is_told_with_both_sizes(amends, orchestrator, tmp_path: Path) -> None:
    (tmp_path / "input.json").write_text(json.dumps({"orderId": "x" * 5_000_000}))
    result = await amends("start", "pay", "-i", "@input.json")
    assert result.code == 1
    assert "the message is too large: 5,000," in result.err
    assert "4,194,304 at most" in result.err
    assert "AMENDS_MAX_MESSAGE_BYTES" in result.err


async def test_no_server_is_said_with_the_address_and_where_it_came_from(run, tmp_path: Path) -> None:
    (tmp_path / ".amends").mkdir()
    (tmp_path / ".amends" / "address").write_text("127.0.0.1:9\n")
    result = await run("list")
    assert result.code == 3
    assert "orchestrator 127.0.0.1:9, from " in result.err
    assert "no orchestrator answers at 127.0.0.1:9" in result.err
    assert "nothing listens there (connection refused)" in result.err
    assert ".amends/address" in result.err
    assert "amends dev" in result.err


async def test_an_address_on_the_command_line_comes_before_what_make_up_left(run, orchestrator, tmp_path: Path) -> None:
    (tmp_path / ".amends").mkdir()
    (tmp_path / ".amends" / "address").write_text("127.0.0.1:9\n")
    assert (await run("list", "--address", orchestrator.target)).code == 0
    assert (await run("list", "--address", "nonsense")).code == 2


async def test_an_address_may_stand_before_the_command(run, orchestrator) -> None:
    assert (await run("--address", orchestrator.target, "-n", "shop", "list", "--state", "parked")).code == 0
    assert (await run(f"--address={orchestrator.target}", "list")).code == 0
    asked = [call.request for call in orchestrator.calls("ListRuns")]
    assert [(request.namespace, list(request.states)) for request in asked] == [
        ("shop", [run_pb2.RUN_STATE_PARKED]),
        ("", []),
    ]
    without_value = await run("--address")
    assert (without_value.code, "--address" in without_value.err) == (2, True)
    assert (await run("--address", orchestrator.target, "nonsense")).code == 2


async def test_a_server_that_is_no_orchestrator_is_told_from_one_that_is_away(run, orchestrator, monkeypatch) -> None:
    monkeypatch.setattr(orchestrator, "_methods", {})
    result = await run("list", "--address", orchestrator.target)
    assert result.code == 1
    assert "is no orchestrator of this version" in result.err
