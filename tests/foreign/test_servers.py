"""Reflection of libraries in Go, Java and Node: a saga over their servers is checked by its contract, and runs.

The servers are built from their public packages where the toolchain is; elsewhere they are skipped with that reason.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc.aio
import pytest
from amends_chassis.reflection import reflect
from amends_saga.analysis import ParticipantView
from amends_saga.check import check
from amends_saga.definition import Document, read
from amends_saga.plan import Scope
from google.protobuf.message_factory import GetMessageClass

from .builds import BUILD, LONGEST, Builds

pytestmark = [pytest.mark.foreign, pytest.mark.timeout(LONGEST.total_seconds() + 60)]
PATIENT = timedelta(seconds=60)
"""For the first answer of a server: another one may be compiling on the same processors."""
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


@pytest.fixture(params=sorted(BUILD))
def port(request: pytest.FixtureRequest, builds: Builds) -> Iterator[int]:
    """The port of a server."""
    with builds.serve(request.param) as child:
        assert child.stdout is not None
        try:
            yield int(child.stdout.readline())
        finally:
            child.kill()


async def test_a_saga_over_a_server_of_another_language_is_checked_and_runs(port: int) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        [participant] = read([Document("p", PARTICIPANT)]).participants
        views = [ParticipantView(participant, await reflect(channel, "zoo.v1.Stock", PATIENT))]
        result = check([Document("s", SAGA)], participants=views)
        assert [finding for finding in result.findings if finding.is_error] == []
        saga = result.sagas[0]
        scope = _scope(saga.parse_input({"id": "t-1", "meta": {"labels": {"a": "b"}}, "parts": [{"sku": "tea"}]}), {})
        call: Any = channel.unary_unary("/zoo.v1.Stock/Take")
        answer = await call(saga.request(0, scope), timeout=PATIENT.total_seconds())
        response: Any = GetMessageClass(saga.response_descriptor(0)).FromString(answer)
        assert response.id == "t-1"
        assert dict(response.meta.labels) == {"a": "b"}
        undo = GetMessageClass(saga.compensation_request_descriptor(0))
        sent: Any = undo.FromString(saga.compensation(0, _scope(scope.input, {0: answer})))
        assert (sent.id, dict(sent.meta.labels)) == ("t-1", {"a": "b"})


def _scope(data: bytes, responses: dict[int, bytes]) -> Scope:
    return Scope(data, "run-1", "take", datetime(2026, 11, 23, tzinfo=UTC), "key-1", responses)
