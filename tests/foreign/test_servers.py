"""Reflection of other languages' libraries: a saga over a server in Node or Go is checked by its contract, and runs.

The servers are built here from their public packages; without the toolchain, or without a package index, they are
skipped with that reason.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from amends_orchestrator.calls.reflection import reflect
from amends_saga.analysis import ParticipantView
from amends_saga.check import check
from amends_saga.definition import Document, read
from amends_saga.plan import Scope
from google.protobuf.message_factory import GetMessageClass

pytestmark = pytest.mark.foreign
HERE = Path(__file__).parent
MINUTES = 4
PARTICIPANT = """apiVersion: amends.dev/v1alpha1
kind: Participant
metadata: {name: stock}
spec: {service: zoo.v1.Stock, target: "localhost:1", methods: ["*"], callers: [default]}
"""
SAGA = """apiVersion: amends.dev/v1alpha1
kind: Saga
metadata: {name: take}
spec:
  input: zoo.v1.TakeRequest
  deadline: 5m
  steps:
    - name: take
      call: zoo.v1.Stock/Take
      request: "TakeRequest{id: input.id, at: saga.started_at, kind: TakeRequest.Kind.FRAGILE, meta: input.meta}"
      compensate: {call: zoo.v1.Stock/Give, request: "TakeRequest{id: take.id, meta: take.meta}"}
    - {name: again, call: zoo.v1.Stock/Take, request: "TakeRequest{meta: take.meta, parts: input.parts}"}
"""


def build(command: list[str], folder: Path) -> None:
    """Run a build; skip when it cannot be made here."""
    tool = shutil.which(command[0])
    if tool is None:
        pytest.skip(f"needs {command[0]} on PATH")
    try:
        done = subprocess.run(
            [tool, *command[1:]], cwd=folder, capture_output=True, text=True, timeout=MINUTES * 60, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{command[0]} did not build the server within {MINUTES} minutes")
    if done.returncode != 0:
        pytest.skip(f"{command[0]} could not build the server: {done.stderr.strip().splitlines()[-1:]}")


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory, compiled: Callable[..., bytes]) -> Callable[[str], list[str]]:
    """How each server is started; builds it first."""
    made: dict[str, list[str]] = {}

    def command(language: str) -> list[str]:
        if language not in made:
            folder = tmp_path_factory.mktemp(language) / "server"
            shutil.copytree(HERE / "servers" / language, folder)
            if language == "node":
                build(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"], folder)
                made[language] = ["node", str(folder / "server.js"), str(HERE / "contracts")]
            else:
                build(["go", "build", "-o", "server", "."], folder)
                (folder / "set.binpb").write_bytes(compiled("stock.proto"))
                made[language] = [str(folder / "server"), str(folder / "set.binpb")]
        return made[language]

    return command


@pytest.fixture(params=["node", "go"])
def port(request: pytest.FixtureRequest, commands: Callable[[str], list[str]]) -> Iterator[int]:
    """The port of a server."""
    command = commands(request.param)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sys.stderr, text=True, env=os.environ) as child:
        assert child.stdout is not None
        try:
            yield int(child.stdout.readline())
        finally:
            child.kill()


async def test_a_saga_over_a_server_of_another_language_is_checked_and_runs(port: int) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        [participant] = read([Document("p", PARTICIPANT)]).participants
        views = [ParticipantView(participant, await reflect(channel, "zoo.v1.Stock"))]
        result = check([Document("s", SAGA)], participants=views)
        assert [finding for finding in result.findings if finding.is_error] == []
        saga = result.sagas[0]
        scope = _scope(saga.parse_input({"id": "t-1", "meta": {"labels": {"a": "b"}}, "parts": [{"sku": "tea"}]}), {})
        call: Any = channel.unary_unary("/zoo.v1.Stock/Take")
        answer = await call(saga.request(0, scope), timeout=20)
        response: Any = GetMessageClass(saga.response_descriptor(0)).FromString(answer)
        assert response.id == "t-1"
        assert dict(response.meta.labels) == {"a": "b"}
        undo = GetMessageClass(saga.compensation_request_descriptor(0))
        sent: Any = undo.FromString(saga.compensation(0, _scope(scope.input, {0: answer})))
        assert (sent.id, dict(sent.meta.labels)) == ("t-1", {"a": "b"})


def _scope(data: bytes, responses: dict[int, bytes]) -> Scope:
    from datetime import UTC, datetime

    return Scope(data, "run-1", "take", datetime(2026, 11, 23, tzinfo=UTC), "key-1", responses)
