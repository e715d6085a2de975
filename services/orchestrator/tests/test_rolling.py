"""Two services that share a message are deployed one after the other: only a contradiction stops new runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from amends_testkit.answers import ScriptedAnswer
from amends_testkit.participant import FakeParticipant
from amends_testkit.waiting import eventually
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from amends.saga.v1 import definition_service_pb2 as pb

from .shop import Client, orchestrator, state

SERVICE = """
syntax = "proto3";
package %(package)s.v1;
import "money.proto";
message BookRequest { string trip_id = 1; shared.v1.Money price = 2; }
message BookReply { string id = 1; shared.v1.Money price = 2; }
service %(service)s { rpc Book(BookRequest) returns (BookReply); rpc Cancel(BookRequest) returns (BookReply); }
"""
MONEY = 'syntax = "proto3"; package shared.v1; message Money { string currency = 1; %s minor = 2; %s }'
PARTICIPANT = """
apiVersion: amends.dev/v1alpha1
kind: Participant
metadata: {name: %s}
spec:
  service: %s
  target: "%s"
  callers: [default]
  methods: [{name: Book, idempotency: IDEMPOTENT}, {name: Cancel, idempotency: IDEMPOTENT}]
"""
SAGA = """
apiVersion: amends.dev/v1alpha1
kind: Saga
metadata: {name: trip}
spec:
  input: {trip_id: string}
  deadline: 60s
  steps:
    - name: room
      call: hotels.v1.Hotels/Book
      request: "BookRequest{trip_id: input.trip_id}"
      compensate: {call: hotels.v1.Hotels/Cancel, request: "BookRequest{trip_id: input.trip_id}"}
    - name: seat
      pivot: true
      call: flights.v1.Flights/Book
      request: "BookRequest{trip_id: input.trip_id, price: room.price}"
"""
PRICE = {"currency": "EUR", "minor": 995}


class Trip:
    """Two services, each with its own copy of `money.proto`, and an orchestrator that reads both by reflection."""

    def __init__(self, client: Client, folder: Path) -> None:
        self.client = client
        self._folder = folder
        self.parts: dict[str, FakeParticipant] = {}

    async def deploy(self, package: str, minor: str = "int64", more: str = "") -> FakeParticipant:
        """Deploy a service, with its version of Money; at its former address when it ran before."""
        name = package.title()
        former = self.parts.get(package)
        port = 0
        if former is not None:
            await former.stop()
            port = int(former.target.rpartition(":")[2])
        contract = self._compiled(package, SERVICE % {"package": package, "service": name}, MONEY % (minor, more))
        part = self.parts[package] = await FakeParticipant.start(contract, [f"{package}.v1.{name}"], port=port)
        part.script("Book", ScriptedAnswer.ok(id=f"{package}-1", price=PRICE))
        if former is None:
            text = PARTICIPANT % (package, f"{package}.v1.{name}", part.target)
            applied = await self.client.definitions.ApplyParticipant(
                pb.ApplyParticipantRequest(manifest=pb.Manifest(text=text))
            )
            assert applied.participant.ready, applied
        return part

    def _compiled(self, package: str, service: str, money: str) -> FileDescriptorSet:
        from grpc_tools import protoc

        folder = self._folder / f"{package}-{len(list(self._folder.iterdir()))}"
        folder.mkdir()
        (folder / "service.proto").write_text(service)
        (folder / "money.proto").write_text(money)
        arguments = ["protoc", f"-I{folder}", "--include_imports", f"--descriptor_set_out={folder}/set.binpb"]
        assert protoc.main([*arguments, "service.proto"]) == 0
        return FileDescriptorSet.FromString((folder / "set.binpb").read_bytes())

    async def start(self, key: str, *, wait: bool = True) -> str:
        """Start a run; the id of it, once it has completed when it is waited for."""
        answer = await self.client.start(key, namespace="default", saga="trip", json={"trip_id": key}, wait=wait)
        assert not wait or state(answer.run) == "COMPLETED", answer.run
        return answer.run.run_id

    async def saga(self) -> pb.SagaInfo:
        [saga] = (await self.client.definitions.ListSagas(pb.ListSagasRequest())).sagas
        return saga

    async def refreshed(self, *, ready: bool, former: str = "") -> pb.SagaInfo:
        """The saga once a refresh made it ready or not, in another version than the former one, where that is given."""

        async def look() -> pb.SagaInfo | None:
            await self.client.parts.refresher.refresh()  # the service may still be coming up
            saga = await self.saga()
            return saga if saga.ready is ready and saga.digest != former else None

        saga = await eventually(look, what="the refresh")
        assert saga is not None
        return saga


@pytest.fixture
async def trip(database_url: str, tmp_path: Path) -> AsyncIterator[Trip]:
    async with orchestrator(database_url) as client:
        trip = Trip(client, tmp_path)
        for package in ("hotels", "flights"):
            await trip.deploy(package)
        await client.apply_saga(SAGA)
        try:
            yield trip
        finally:
            for part in trip.parts.values():
                await part.stop()


async def test_a_field_that_one_service_gets_first_stops_no_run(trip: Trip):
    before = (await trip.saga()).digest
    held = asyncio.Event()
    trip.parts["flights"].script("Book", ScriptedAnswer.ok(id="late").once(held), ScriptedAnswer.ok())
    under_way = await trip.start("under-way", wait=False)
    await trip.parts["flights"].called("Book")
    hotels = await trip.deploy("hotels", more="string note = 3;")
    hotels.script("Book", ScriptedAnswer.ok(price=PRICE | {"note": "with breakfast"}))
    await trip.start("before-the-refresh")
    after = await trip.refreshed(ready=True, former=before)
    await trip.start("after-the-refresh")
    held.set()
    ended = await trip.client.ended(under_way)
    assert (state(ended), ended.digest) == ("COMPLETED", before)
    trip.parts["flights"].received.clear()
    flights = await trip.deploy("flights", more="string note = 3;")
    await trip.client.parts.refresher.refresh()
    await trip.start("both-have-it")
    assert (await trip.saga()).digest == after.digest, "the union is the same, whoever says it"
    assert flights.calls("Book")[-1].request.price.note == "with breakfast"  # type: ignore[attr-defined]


async def test_a_contradiction_names_both_services_the_message_and_the_field_and_stops_new_runs_alone(trip: Trip):
    held = asyncio.Event()
    trip.parts["hotels"].script("Book", ScriptedAnswer.ok(price=PRICE).once(held))
    under_way = await trip.start("under-way", wait=False)
    await trip.parts["hotels"].called("Book")
    flights = await trip.deploy("flights", minor="string")
    flights.script("Book", ScriptedAnswer.ok())
    saga = await trip.refreshed(ready=False)
    for word in ("default/hotels", "default/flights", "shared.v1.Money", "minor", "int64", "string"):
        assert word in saga.message
    checked = await trip.client.definitions.CheckSaga(pb.CheckSagaRequest(manifests=[pb.Manifest(text=SAGA)]))
    errors = [finding for finding in checked.findings if finding.severity == pb.SEVERITY_ERROR]
    assert [(finding.code, finding.message) for finding in errors] == [("AM027", saga.message)]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await trip.start("new")
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "shared.v1.Money" in (refused.value.details() or "")
    held.set()
    assert state(await trip.client.ended(under_way)) == "COMPLETED", "it goes on as it was pinned"
    assert len(flights.calls("Book")) == 1
    await trip.deploy("flights")
    await trip.refreshed(ready=True)
    await trip.start("as-before")
