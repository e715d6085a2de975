"""Roles in namespaces: who may do what, what does not exist for whom, and who is written into the journal."""

import json
from contextlib import asynccontextmanager
from uuid import uuid4

import grpc.aio
import pytest
from amends_chassis.certificates import Certificates
from amends_chassis.dial import dial
from amends_chassis.followed import RulesError
from amends_embedded.authority import Authority, spiffe
from amends_orchestrator.permissions import METHODS, Role, parse, permissions_of
from amends_testkit.answers import ScriptedAnswer
from amends_testkit.service import refusal_of
from amends_testkit.waiting import eventually
from pydantic import SecretStr

from amends.events.v1 import events_service_pb2 as epb
from amends.events.v1 import webhooks_pb2 as wpb
from amends.events.v1.events_service_pb2_grpc import EventsServiceStub
from amends.events.v1.webhooks_pb2_grpc import WebhookServiceStub
from amends.saga.v1 import definition_service_pb2 as dpb
from amends.saga.v1 import run_service_pb2 as pb
from amends.saga.v1.definition_service_pb2_grpc import DefinitionServiceStub
from amends.saga.v1.run_service_pb2_grpc import RunServiceStub

from .shop import EXAMPLE, Client, open_shop, orchestrator, state

DEFINER, OPERATOR, VIEWER, READER, OTHER, NOBODY, ADMIN = (
    spiffe("people", name) for name in ("definer", "operator", "viewer", "reader", "other", "nobody", "admin")
)
NOWHERE = SecretStr("nats://127.0.0.1:9")
"""With a broker, the service for events is there, too."""
REFUSED = ScriptedAnswer.refused(grpc.StatusCode.FAILED_PRECONDITION, text="no")
ROLES = [
    ([DEFINER], ["shop"], ["definer"]),
    ([OPERATOR], ["shop"], ["operator"]),
    ([VIEWER], ["shop"], ["viewer"]),
    ([READER], ["shop"], ["payload-reader"]),
    ([OTHER], ["elsewhere"], ["operator", "definer", "payload-reader"]),
    ([ADMIN], ["*"], ["admin"]),
]


def roles(bindings) -> str:
    keys = ("subjects", "namespaces", "roles")
    return json.dumps({"bindings": [dict(zip(keys, binding, strict=True)) for binding in bindings]})


@pytest.fixture
async def served(tmp_path, database_url):
    """An orchestrator with roles, and a way to call it as somebody."""
    authority = Authority.make()
    for name in ("orchestrator", "shop"):
        authority.certify(tmp_path / name, spiffe("amends", name))
    (tmp_path / "roles.json").write_text(roles(ROLES))
    settings = {"tls_dir": tmp_path / "orchestrator", "roles": tmp_path / "roles.json", "broker": NOWHERE}
    async with open_shop(Certificates(tmp_path / "shop")) as shop, orchestrator(database_url, **settings) as client:

        @asynccontextmanager
        async def acting(identity: str):
            folder = tmp_path / identity.rpartition("/")[2]
            authority.certify(folder, identity)
            async with dial(client.runtime.address, certificates=Certificates(folder)) as channel:
                yield Client(
                    client.runtime, client.parts, RunServiceStub(channel), DefinitionServiceStub(channel), channel
                )

        yield shop, acting


async def refused(call) -> str:
    """Code and reason of a call; OK when it is served."""
    try:
        if hasattr(call, "read"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return " ".join(refusal_of(error))
    return "OK"


def test_every_method_of_all_services_has_a_role():
    services = [
        pb.DESCRIPTOR.services_by_name["RunService"],
        dpb.DESCRIPTOR.services_by_name["DefinitionService"],
        wpb.DESCRIPTOR.services_by_name["WebhookService"],
        epb.DESCRIPTOR.services_by_name["EventsService"],
    ]
    assert {method.name for service in services for method in service.methods} == set(METHODS)


async def test_each_role_may_do_what_it_says_and_no_more(served):
    shop, acting = served
    async with acting(DEFINER) as definer:
        await definer.apply(shop)
        assert await refused(definer.start("k")) == "PERMISSION_DENIED ROLE_MISSING"
    async with acting(OPERATOR) as operator:
        run_id = (await operator.start("k")).run.run_id
        text = (EXAMPLE / "saga.yaml").read_text()
        apply = dpb.ApplySagaRequest(manifest=dpb.Manifest(text=text, source="saga.yaml"))
        assert await refused(operator.definitions.ApplySaga(apply)) == "PERMISSION_DENIED ROLE_MISSING"
        assert await refused(operator.runs.ReadPayload(pb.ReadPayloadRequest(run_id=run_id))) == (
            "PERMISSION_DENIED ROLE_MISSING"
        )
    async with acting(VIEWER) as viewer:
        assert not (await viewer.run(run_id)).HasField("input")
        assert [run.run_id for run in (await viewer.runs.ListRuns(pb.ListRunsRequest())).runs] == [run_id]
        cancel = pb.CancelRunRequest(run_id=run_id, actor="ada", reason="r")
        assert await refused(viewer.runs.CancelRun(cancel)) == "PERMISSION_DENIED ROLE_MISSING"
    async with acting(READER) as reader:
        assert (await reader.run(run_id)).input["orderId"] == "o-1"
        assert await refused(reader.runs.ReadPayload(pb.ReadPayloadRequest(run_id=run_id))) == "OK"
        assert await refused(reader.start("k2")) == "PERMISSION_DENIED ROLE_MISSING"
    async with acting(ADMIN) as admin:
        assert state((await admin.start("k3")).run) == "COMPLETED"


@pytest.mark.parametrize(("identity", "answer"), [(OPERATOR, "PERMISSION_DENIED ROLE_MISSING"), (ADMIN, "OK")])
async def test_only_an_administrator_of_every_namespace_sees_and_decides_what_others_are_told(served, identity, answer):
    """Webhooks and events are of all namespaces together."""
    _, acting = served
    decide = wpb.DecideWebhookRequest(
        webhook="on-call", event_id=str(uuid4()), decision=wpb.WEBHOOK_DECISION_SKIP, reason="r", actor="ada"
    )
    skip = epb.SkipOutboxRequest(event_id=str(uuid4()), reason="r", actor="ada")
    unknown = {"OK": ("NOT_FOUND EVENT_UNKNOWN", "NOT_FOUND OUTBOX_EVENT_UNKNOWN")}.get(answer, (answer, answer))
    async with acting(identity) as caller:
        webhooks, events = WebhookServiceStub(caller.channel), EventsServiceStub(caller.channel)
        assert await refused(webhooks.ListWebhooks(wpb.ListWebhooksRequest())) == answer
        assert await refused(webhooks.DecideWebhook(decide)) == unknown[0]
        assert await refused(events.ListOutbox(epb.ListOutboxRequest())) == answer
        assert await refused(events.SkipOutbox(skip)) == unknown[1]


async def test_what_a_caller_may_not_read_does_not_exist_for_it(served):
    shop, acting = served
    async with acting(ADMIN) as admin:
        await admin.apply(shop)
        run_id = (await admin.start("k")).run.run_id
    for identity in (OTHER, NOBODY):
        async with acting(identity) as other:
            runs, definitions = other.runs, other.definitions
            asked = [
                runs.GetRun(pb.GetRunRequest(run_id=run_id)),
                runs.WatchRun(pb.WatchRunRequest(run_id=run_id)),
                runs.ReadPayload(pb.ReadPayloadRequest(run_id=run_id)),
                runs.CancelRun(pb.CancelRunRequest(run_id=run_id, actor="a", reason="r")),
                runs.ResolveRun(pb.ResolveRunRequest(run_id=run_id, actor="a", reason="r", resolution=5)),
            ]
            assert [await refused(call) for call in asked] == ["NOT_FOUND RUN_UNKNOWN"] * len(asked)
            by_key = pb.GetRunRequest(namespace="shop", idempotency_key="k")
            assert await refused(runs.GetRun(by_key)) == "PERMISSION_DENIED ROLE_MISSING"
            missing = pb.GetRunRequest(namespace="no-such", idempotency_key="k")
            assert await refused(runs.GetRun(missing)) == "PERMISSION_DENIED ROLE_MISSING"
            for namespace in ("", "shop"):
                assert not (await runs.ListRuns(pb.ListRunsRequest(namespace=namespace))).runs
                assert not (await runs.ListRuns(pb.ListRunsRequest(namespace=namespace, run_id_prefix=run_id[:4]))).runs
                assert not (await definitions.ListSagas(dpb.ListSagasRequest(namespace=namespace))).sagas
                listed = await definitions.ListParticipants(dpb.ListParticipantsRequest(namespace=namespace))
                assert not listed.participants
                policies = await definitions.ListRetryPolicies(dpb.ListRetryPoliciesRequest(namespace=namespace))
                assert not policies.retry_policies
            text = (EXAMPLE / "saga.yaml").read_text()
            apply = dpb.ApplySagaRequest(manifest=dpb.Manifest(text=text, source="s"), namespace="elsewhere")
            assert await refused(definitions.ApplySaga(apply)) == "PERMISSION_DENIED ROLE_MISSING"
            delete = dpb.DeleteSagaRequest(namespace="shop", name="place-order")
            assert await refused(definitions.DeleteSaga(delete)) == "PERMISSION_DENIED ROLE_MISSING"
    async with acting(ADMIN) as admin:
        assert state(await admin.run(run_id)) == "COMPLETED"


async def test_a_participant_names_those_sagas_alone_that_its_reader_may_read(served):
    shop, acting = served
    open_to_both = [text.replace("callers: [shop]", "callers: [shop, elsewhere]") for text in shop.manifests()]
    saga = (EXAMPLE / "saga.yaml").read_text()
    names = {}
    for identity in (ADMIN, VIEWER):
        async with acting(identity) as caller:
            if identity == ADMIN:
                await caller.apply(shop)
                for text in open_to_both:
                    manifest = dpb.Manifest(text=text, source="participants.yaml")
                    await caller.definitions.ApplyParticipant(dpb.ApplyParticipantRequest(manifest=manifest))
                await caller.apply_saga(saga.replace("namespace: shop", "namespace: elsewhere"))
            listed = await caller.definitions.ListParticipants(dpb.ListParticipantsRequest(namespace="shop"))
            names[identity] = set().union(*(one.sagas for one in listed.participants))
    assert names == {ADMIN: {"shop/place-order", "elsewhere/place-order"}, VIEWER: {"shop/place-order"}}


async def test_the_journal_names_who_decided_by_the_certificate_and_what_was_said_beside_it(served):
    shop, acting = served
    async with acting(ADMIN) as admin:
        await admin.apply(shop)
        shop.shipping.script("Book", REFUSED)
        shop.payments.script("Refund", REFUSED)
        parked = (await admin.start("k")).run
        assert state(parked) == "PARKED"
    async with acting(OPERATOR) as operator:
        request = pb.ResolveRunRequest(
            run_id=parked.run_id,
            actor="ada",
            reason="by hand",
            expected_seq=parked.parked.seq,
            resolution=pb.RESOLUTION_SKIP,
            effect=pb.EFFECT_HAPPENED,
        )
        await operator.runs.ResolveRun(request)
    async with acting(VIEWER) as viewer:
        actors = [event.actor for event in await viewer.timeline(parked.run_id) if event.actor]
    assert actors == [f"{OPERATOR} (says to be ada)"]


async def test_roles_follow_their_file(served, tmp_path):
    _, acting = served
    async with acting(NOBODY) as nobody:
        (tmp_path / "roles.json").write_text(roles([*ROLES, ([NOBODY], ["shop"], ["definer"])]))

        async def may() -> bool:
            delete = dpb.DeleteSagaRequest(namespace="shop", name="place-order")
            return await refused(nobody.definitions.DeleteSaga(delete)) == "OK"

        assert await eventually(may, what="the new role is in force")


async def test_roles_without_certificates_are_refused(tmp_path, database_url):
    (tmp_path / "roles.json").write_text(roles(ROLES))
    with pytest.raises(RulesError, match="AMENDS_TLS_DIR"):
        async with orchestrator(database_url, roles=tmp_path / "roles.json"):
            pass


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{}", "an object with the list `bindings`"),
        ('{"bindings": [{"subjects": ["s"], "namespaces": ["n"], "roles": ["root"]}]}', "'root' is none of viewer"),
        ('{"bindings": [{"subjects": [], "namespaces": ["n"], "roles": ["viewer"]}]}', "bindings[0].subjects must be"),
        ('{"bindings": [{"subjects": ["s"], "roles": ["viewer"]}]}', "bindings[0].namespaces must be"),
    ],
)
def test_a_file_of_roles_that_makes_no_sense_says_where(text, why):
    with pytest.raises(RulesError) as caught:
        parse(text, "roles.json")
    assert why in str(caught.value)


def test_roles_of_several_bindings_add_up():
    found = permissions_of(parse(roles([(["a"], ["n"], ["viewer"]), (["a"], ["*"], ["operator"])]), "f"), "a")
    assert found.may(Role.OPERATOR, "n")
    assert found.may(Role.VIEWER, "m")
    assert not found.may(Role.DEFINER, "n")
    assert found.readable() is None
