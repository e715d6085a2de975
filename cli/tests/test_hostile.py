"""What others wrote reaches no terminal as it is, and no value of any option ends in a traceback."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
import typer
import yaml
from amends_chassis.text import UNSAFE
from amends_cli.main import COMMANDS, EXAMPLES, build
from amends_testkit.answers import ScriptedAnswer

from amends.saga.v1 import definition_service_pb2 as definitions
from amends.saga.v1 import run_pb2
from amends.saga.v1 import run_service_pb2 as runs

RUN = "018f0000-0000-7000-8000-000000000001"
FORGED = "7 ended COMPLETED"
EVIL = f"no\n{FORGED}\r\x1b[2J\x1b]0;owned\x07\x1b]52;c;cm0=\x1b\\\x9b31m\u202edetelpmoc\u2066\u2028\x00\x7f[bold]"
PAYMENTS = """\
apiVersion: amends.dev/v1alpha1
kind: Participant
metadata: {name: payments}
spec: {service: shop.payments.v1.PaymentService, target: "127.0.0.1:1"}
"""


def evil_run() -> run_pb2.Run:
    run = run_pb2.Run(
        run_id=RUN,
        namespace=EVIL,
        saga=EVIL,
        idempotency_key=EVIL,
        state=run_pb2.RUN_STATE_PARKED,
        message=EVIL,
        digest=EVIL,
        parked=run_pb2.Parked(reason=EVIL, message=EVIL, step=EVIL, seq=7, resolutions=["retry"]),
        stalled=run_pb2.Stalled(step=EVIL, reason=EVIL),
        steps=[run_pb2.StepStatus(name=EVIL, message=EVIL)],
    )
    run.parked.choices.add(resolution=EVIL, effect=EVIL, result_example=EVIL)
    run.steps[0].response.update({EVIL: EVIL})
    run.input.update({EVIL: EVIL})
    return run


def script_evil(orchestrator) -> None:
    run = evil_run()
    event = run_pb2.RunEvent(seq=1, kind=EVIL, step=EVIL, outcome=EVIL, code=EVIL, message=EVIL, actor=EVIL)
    finding = definitions.Finding(code="AM010", message=EVIL, hint=EVIL, source=EVIL, line=1, column=1, excerpt=EVIL)
    saga = definitions.SagaInfo(namespace=EVIL, name="x", message=EVIL, steps=[EVIL], participants=[EVIL])
    participant = definitions.ParticipantInfo(name="x", service=EVIL, target=EVIL, message=EVIL, sagas=[EVIL])
    policy = definitions.RetryPolicyInfo(name="x", participants=[EVIL], methods=[EVIL], conflicts=[EVIL])
    applied = definitions.ApplyParticipantResponse(accepted=True, participant=participant, findings=[finding])
    for method, answer in {
        "GetRun": runs.GetRunResponse(run=run),
        "ListRuns": runs.ListRunsResponse(runs=[run]),
        "StartRun": runs.StartRunResponse(run=run),
        "ResolveRun": runs.ResolveRunResponse(run=run),
        "CancelRun": runs.CancelRunResponse(run=run),
        "ListSagas": definitions.ListSagasResponse(sagas=[saga]),
        "ListParticipants": definitions.ListParticipantsResponse(participants=[participant]),
        "ListRetryPolicies": definitions.ListRetryPoliciesResponse(retry_policies=[policy]),
        "CheckSaga": definitions.CheckSagaResponse(findings=[finding]),
        "ApplyParticipant": applied,
    }.items():
        orchestrator.script(method, ScriptedAnswer.ok(answer))
    orchestrator.script("WatchRun", ScriptedAnswer.streamed(runs.WatchRunResponse(event=event, run=run)))


SHOWING = [
    ("get", RUN),
    ("get", "saga/x"),
    ("get", "participant", "x"),
    ("get", "policy/x"),
    ("list",),
    ("list", "sagas"),
    ("list", "participants"),
    ("list", "policies"),
    ("watch", RUN),
    ("start", "x", "--wait"),
    ("start", "x", "--watch"),
    ("resolve", RUN, "retry", "--reason", "x"),
    ("cancel", RUN, "--reason", "x"),
    ("check", "payments.yaml"),
    ("apply", "payments.yaml"),
    ("diff", "payments.yaml"),
]


def loaded(text: str, form: str) -> object:
    if form == "yaml":
        return list(yaml.safe_load_all(text))
    try:
        return json.loads(text)
    except json.JSONDecodeError:  # a timeline: a record on each line
        return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("form", ["table", "wide", "json", "yaml"])
@pytest.mark.parametrize("command", SHOWING, ids=" ".join)
async def test_no_text_of_others_moves_a_terminal_or_adds_a_line(amends, orchestrator, tmp_path, command, form) -> None:
    script_evil(orchestrator)
    (tmp_path / "payments.yaml").write_text(PAYMENTS)
    result = await amends(*command, "-o", form)
    assert result.out
    for stream in (result.out, result.err):
        assert not UNSAFE.search(stream.replace("\n", "")), stream
        assert FORGED not in [line.strip() for line in stream.splitlines()]
    if form in ("json", "yaml"):
        loaded(result.out, form)


async def test_json_and_yaml_say_exactly_what_was_written(amends, orchestrator) -> None:
    script_evil(orchestrator)
    for form in ("json", "yaml"):
        shown = loaded((await amends("get", RUN, "-o", form)).out, form)
        run = shown[0] if isinstance(shown, list) else shown
        assert run["message"] == EVIL
        assert run["input"] == {EVIL: EVIL}


async def test_the_text_of_an_error_is_one_line(amends, orchestrator) -> None:
    orchestrator.script(
        "GetRun", ScriptedAnswer.refused(grpc.StatusCode.NOT_FOUND, "RUN_UNKNOWN", f"a\n{FORGED}\x1b[2J")
    )
    result = await amends("get", RUN)
    assert not UNSAFE.search(result.err.replace("\n", ""))
    assert FORGED not in result.err.splitlines()


# ---------------------------------------------------------------- values of options

VALUES = ["", "inf", "1e15", "-1", "9" * 30, EVIL.replace("\0", ""), "a\0b", "\udcff", "@nowhere", "x/y/z"]
NEEDED = {
    "check": ["payments.yaml"],
    "apply": ["payments.yaml"],
    "diff": ["payments.yaml"],
    "delete": ["saga/x"],
    "get": [RUN],
    "list": [],
    "start": ["x"],
    "watch": [RUN],
    "resolve": [RUN, "retry", "--reason", "x"],
    "cancel": [RUN, "--reason", "x"],
    "audit": ["--database", "postgresql://127.0.0.1:1/x"],
    "explore": ["payments.yaml"],
    "probe": ["127.0.0.1:1", "a.v1.B/C", "--timeout", "100ms"],
    "flows": ["x"],
    "events": [],
    "dev": ["--stop"],
}


def parameters(command: str):
    """The options and arguments of a command, as typer knows them."""
    group = typer.main.get_command(build([command]))
    known = group.commands[command] if hasattr(group, "commands") else group
    return [
        parameter for parameter in known.params if parameter.name != "help" and not getattr(parameter, "is_flag", 0)
    ]


@pytest.mark.parametrize("command", COMMANDS)
async def test_no_value_of_an_option_ends_in_a_traceback(amends, orchestrator, tmp_path, command: str) -> None:
    script_evil(orchestrator)
    (tmp_path / "payments.yaml").write_text(PAYMENTS)
    for parameter in parameters(command):
        for value in VALUES:
            options = [option for option in parameter.opts if option.startswith("--")]
            if options:
                given = [command, *NEEDED[command], f"{options[0]}={value}"]
            else:
                given = [command, "--", value] if not NEEDED[command][1:] else [command, value, *NEEDED[command][1:]]
            result = await amends(*given)
            assert result.code in range(7), (given, result)
            assert not UNSAFE.search((result.out + result.err).replace("\n", "")), given


def test_each_command_shows_two_examples_and_a_summary_that_is_not_cut() -> None:
    group = typer.main.get_command(build())
    for name, command in group.commands.items():
        assert len(command.get_short_help_str(60)) < 60
        assert not command.get_short_help_str(60).endswith("...")
        assert len(EXAMPLES[name]) == 2
        assert all(example.startswith(f"amends {name} ") for example in EXAMPLES[name])


@pytest.mark.parametrize("words", [("list", "--address"), ("probe", "--observe", "a.v1.S/N", "--")])
async def test_certificates_of_no_use_are_wrong_use(run, monkeypatch, tmp_path, words: tuple[str, ...]) -> None:
    monkeypatch.setenv("AMENDS_TLS_DIR", str(tmp_path / "nowhere"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        more = ("a.v1.S/M",) if words[0] == "probe" else ()
        result = await run(*words, f"127.0.0.1:{server.getsockname()[1]}", *more)
    assert (result.code, "tls.crt cannot be read" in result.err, "Traceback" in result.err) == (2, True, False), result
    assert "AMENDS_TLS_DIR names a folder with" in result.err


def test_arguments_are_called_by_their_names_without_types_and_braces() -> None:
    group = typer.main.get_command(build())
    for name, command in group.commands.items():
        context = command.make_context(name, [], resilient_parsing=True)
        assert "{" not in command.get_usage(context)
        shown = command.get_help(context).split("Options:")[0]
        assert "<" not in shown, shown
    usage = group.commands["check"].get_usage(group.commands["check"].make_context("c", [], resilient_parsing=True))
    assert usage.endswith("[OPTIONS] FILE...")


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "dev"])
def test_the_examples_of_a_command_are_understood(command: str, capsys) -> None:
    group = typer.main.get_command(build([command]))
    known = group.commands[command] if hasattr(group, "commands") else group
    import shlex

    for example in EXAMPLES[command]:
        known.make_context("amends", shlex.split(example)[2:])


# ---------------------------------------------------------------- streams


def amends_process(*arguments: str, redirect: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    words = " ".join(f"'{word}'" for word in (sys.executable, "-m", "amends_cli", *arguments))
    told = {name: value for name, value in os.environ.items() if not name.startswith("AMENDS_")} | environment
    return subprocess.run(["bash", "-c", f"{words} {redirect}"], capture_output=True, env=told, check=False)


@pytest.mark.parametrize(
    ("redirect", "said"),
    [("> /dev/full", b"the output cannot be written: No space left on device"), (">&-", b"standard output is closed")],
)
def test_an_output_that_takes_nothing_is_said_in_a_line(redirect: str, said: bytes) -> None:
    done = amends_process("help", redirect=redirect)
    assert done.returncode == 1
    assert said in done.stderr
    assert b"Traceback" not in done.stderr


def test_bytes_that_are_no_text_are_wrong_use() -> None:
    done = subprocess.run([sys.executable, "-m", "amends_cli", "get", b"\xff"], capture_output=True, check=False)
    assert done.returncode == 2
    assert b"argument 2 is no UTF-8 text" in done.stderr


def test_a_terminal_that_knows_ascii_alone_is_written_to() -> None:
    done = amends_process("get", "zürich", "--address", "127.0.0.1:1", PYTHONIOENCODING="ascii")
    assert done.returncode in (2, 3)
    assert b"z\\xfcrich" in done.stderr


def test_a_locale_that_knows_ascii_alone_takes_every_text() -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = amends_process("get", "zürich", "--address", "127.0.0.1:1", **ascii_only)
    assert done.returncode in (2, 3)
    assert b"no UTF-8" not in done.stderr
    assert b"z\\xfcrich" in done.stderr


@pytest.mark.parametrize("path", ["a-file", "/proc/nowhere"])
async def test_dev_says_that_its_data_has_no_place(run, tmp_path: Path, path: str) -> None:
    (tmp_path / "a-file").write_text("")
    result = await run("dev", "--port", "0", "--data", path)
    assert result.code == 2
    assert re.search(r"--data \S+ cannot be used: ", result.err)
