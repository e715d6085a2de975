"""Contracts that would keep a process busy or fill its memory are kept out and told; everything else goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from amends_contracts import descriptor_set
from amends_orchestrator.worker.limits import WorkLimits
from amends_testkit.participant import FakeParticipant
from amends_testkit.waiting import eventually
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from amends.saga.v1 import definition_service_pb2 as pb

from .shop import EXAMPLE, SERVICES, Client, Shop, open_shop, orchestrator, state

LONGEST_PAUSE = 1.0
"""Seconds for which the loop may be busy. The lease is ten; the machine that runs this may be busy itself."""


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as shop:
        yield shop


@pytest.fixture
async def client(database_url: str, shop: Shop) -> AsyncIterator[Client]:
    async with orchestrator(database_url, call_timeout=timedelta(minutes=1)) as client:
        await client.apply(shop)
        yield client


class Pauses:
    """How long the loop did not turn, at worst."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def watch(self) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            await asyncio.sleep(0.01)
            self.longest = max(self.longest, loop.time() - last - 0.01)
            last = loop.time()


@contextmanager
def pauses() -> Iterator[Pauses]:
    found = Pauses()
    task = asyncio.get_running_loop().create_task(found.watch())
    yield found
    task.cancel()


def of_payments(files: FileDescriptorSet) -> FileDescriptorProto:
    return next(file for file in files.file if file.package == "shop.payments.v1")


def with_reserved_ranges() -> FileDescriptorSet:
    files = FileDescriptorSet()
    files.CopyFrom(descriptor_set())
    message = of_payments(files).message_type.add(name="Reserved")
    for i in range(190_000):
        message.reserved_range.add(start=2 * i + 10, end=2 * i + 11)
    return files


def with_a_chain() -> FileDescriptorSet:
    files = FileDescriptorSet()
    files.CopyFrom(descriptor_set())
    file = of_payments(files)
    for i in range(2_000):
        message = file.message_type.add(name=f"Link{i}")
        if i < 1_999:
            message.field.add(name="next", number=1, label=1, type=11, type_name=f".shop.payments.v1.Link{i + 1}")
    request = next(message for message in file.message_type if message.name == "ChargeRequest")
    request.field.add(name="chain", number=900, label=1, type=11, type_name=".shop.payments.v1.Link0")
    return files


def participants(listed: pb.ListParticipantsResponse) -> dict[str, pb.ParticipantInfo]:
    return {participant.name: participant for participant in listed.participants}


async def restarted(shop: Shop, files: FileDescriptorSet) -> FakeParticipant:
    """Payments, at the same address, with another contract."""
    port = int(shop.payments.target.rpartition(":")[2])
    await shop.payments.stop()
    return await FakeParticipant.start(files, [SERVICES["payments"]], port=port)


async def test_a_contract_over_its_budget_is_kept_out_and_what_was_good_stays(client: Client, shop: Shop):
    async with await restarted(shop, with_reserved_ranges()):
        with pauses() as found:

            async def refused() -> pb.ParticipantInfo | None:
                await client.parts.refresher.refresh()
                listed = await client.definitions.ListParticipants(pb.ListParticipantsRequest())
                payments = participants(listed)["payments"]
                return payments if not payments.ready else None

            payments = await eventually(refused)
            assert state((await client.start("k")).run) == "COMPLETED"
    assert payments is not None
    assert payments.message == (
        "its contract cannot be used, the former one stays: "
        "One message, enum or service has more than 1,000 reserved ranges."
    )
    assert {method.name for method in payments.methods} >= {"Charge", "Refund"}
    [saga] = (await client.definitions.ListSagas(pb.ListSagasRequest())).sagas
    assert saga.ready
    assert found.longest < LONGEST_PAUSE
    await shop.payments.listen(port=int(shop.payments.target.rpartition(":")[2]))

    async def good_again() -> bool:
        await client.parts.refresher.refresh()
        listed = await client.definitions.ListParticipants(pb.ListParticipantsRequest())
        return participants(listed)["payments"].ready

    await eventually(good_again)


async def test_a_saga_that_cannot_be_compiled_any_more_is_its_own_affair(client: Client, shop: Shop):
    """The sagas and Participants after it are looked at all the same."""
    other = (EXAMPLE / "saga.yaml").read_text().replace("name: place-order", "name: z-order")
    await client.apply_saga(other.replace("deadline: 60s", "deadline: 50s"))
    async with await restarted(shop, with_a_chain()):

        async def all_told() -> list[pb.SagaInfo] | None:
            await client.parts.refresher.refresh()
            sagas = (await client.definitions.ListSagas(pb.ListSagasRequest())).sagas
            return list(sagas) if not any(saga.ready for saga in sagas) else None

        sagas = await eventually(all_told)
    assert sagas is not None
    assert [saga.message for saga in sagas] == ["Its messages lead to each other further than 350 deep."] * 2


async def test_a_check_that_runs_out_of_its_bounds_is_a_finding(client: Client):
    client.parts.worker.limits = WorkLimits(memory=40 * 1024 * 1024)
    await client.parts.worker.close()
    manifest = pb.Manifest(text=(EXAMPLE / "saga.yaml").read_text(), source="saga.yaml")
    answer = await client.definitions.CheckSaga(pb.CheckSagaRequest(manifests=[manifest]))
    [finding] = answer.findings
    assert (finding.code, finding.source) == ("AM003", "saga.yaml")
    assert "memory" in finding.message
    client.parts.worker.limits = WorkLimits()
    answer = await client.definitions.CheckSaga(pb.CheckSagaRequest(manifests=[manifest]))
    assert not [finding for finding in answer.findings if finding.severity == pb.SEVERITY_ERROR]


async def test_many_values_in_many_texts_keep_nobody_waiting(client: Client):
    many = [pb.Manifest(text="[" + "[]," * 49_000 + "]", source=f"{i}.yaml") for i in range(25)]
    with pauses() as found:
        answer = await client.definitions.CheckSaga(pb.CheckSagaRequest(manifests=many))
    assert "AM003" in {finding.code for finding in answer.findings}
    assert found.longest < LONGEST_PAUSE


async def test_the_texts_in_force_are_bounded_for_each_namespace(client: Client):
    text = "apiVersion: amends.dev/v1alpha1\nkind: RetryPolicy\nmetadata: {name: NAME, namespace: wide}\nspec: {}\n"
    for name, accepted in (("a", True), ("b", False)):
        padded = text.replace("NAME", name) + "#" * 300_000
        request = pb.ApplyRetryPolicyRequest(manifest=pb.Manifest(text=padded))
        answer = await client.definitions.ApplyRetryPolicy(request)
        assert answer.accepted is accepted
    assert "of namespace wide would have more than 524,288 characters" in answer.findings[0].message
