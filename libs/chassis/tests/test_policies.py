import asyncio
import json
import os
import sys
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from amends_chassis.clients import Channel
from amends_chassis.policies import PoliciesError, PolicySource, parse, repeatable
from amends_chassis.pushback import LONGEST, NEVER, asked_pause
from amends_embedded import Child
from amends_testkit.waiting import eventually
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from .echo import Echo, Stub, serving

FIVE = timedelta(seconds=5)


def text(**spec) -> str:
    return json.dumps({"version": 1, "policies": [{"name": "shop/default", **spec}]})


def retry_info(seconds: int) -> bytes:
    info = RetryInfo()
    info.retry_delay.seconds = seconds
    status = Status(code=8, message="busy")
    status.details.add().Pack(info)
    return status.SerializeToString()


def mount(folder: Path, content: str, number: int) -> Path:
    """Put a file in place as the kubelet does: a new folder, and a symbolic link swapped to it in one step."""
    version = folder / f"..{number}"
    version.mkdir(parents=True)
    (version / "policies.json").write_text(content)
    draft = folder / "..data_tmp"
    draft.symlink_to(version.name)
    draft.replace(folder / "..data")
    path = folder / "policies.json"
    if not path.is_symlink():
        path.symlink_to("..data/policies.json")
    return path


def test_a_compiled_policy_is_read_with_every_field():
    (named,) = parse(
        text(
            selector={"participants": ["a.v1.S"], "methods": ["M"]},
            timeout="1m30s",
            attempts=7,
            backoff={"initial": "10s"},
            retryOn=["UNAVAILABLE"],
            budget={"ratio": 0.5, "minPerSecond": 1},
            circuitBreaker={"failureRatio": 0.1, "minimumCalls": 3, "window": "2s", "openFor": "500ms"},
            bulkhead={"maxConcurrent": 2, "maxQueued": 0},
        )
    )
    policy = named.policy
    assert (named.name, named.selector.participants, named.selector.methods) == ("shop/default", ("a.v1.S",), ("M",))
    assert (policy.timeout, policy.attempts, policy.retry_on) == (timedelta(seconds=90), 7, {"UNAVAILABLE"})
    assert (policy.backoff.initial, policy.backoff.maximum) == (timedelta(seconds=10), timedelta(seconds=10))
    assert policy.circuit_breaker.open_for == timedelta(milliseconds=500)
    assert (policy.budget.ratio, policy.bulkhead.max_queued) == (0.5, 0)


@pytest.mark.parametrize(
    "wrong", ["", "[]", "{}", '{"version": 2, "policies": []}', text(attempts=0), text(timeout="2 s"), text(timeout=2)]
)
def test_what_is_no_compiled_policy_is_refused(wrong):
    with pytest.raises(PoliciesError):
        parse(wrong)


def test_a_broken_file_leaves_what_was_in_force(tmp_path):
    source = PolicySource(mount(tmp_path, text(attempts=2), 1))
    mount(tmp_path, "{", 2)
    assert not source.look()
    found = source.find("/a.v1.S/M")
    assert found is not None
    assert found.attempts == 2
    mount(tmp_path, text(attempts=3), 3)
    assert source.look()
    found = source.find("/a.v1.S/M")
    assert found is not None
    assert found.attempts == 3


def test_a_missing_file_and_a_conflict_give_no_policy(tmp_path):
    assert PolicySource(tmp_path / "nothing").find("/a.v1.S/M") is None
    both = json.dumps({"version": 1, "policies": [{"name": "shop/a"}, {"name": "shop/b"}]})
    assert PolicySource(mount(tmp_path, both, 1)).find("/a.v1.S/M") is None


def test_contracts_say_which_methods_may_be_repeated():
    assert "/amends.saga.v1.RunService/StartRun" in repeatable()
    assert "/amends.saga.v1.RunService/ResolveRun" not in repeatable()


async def _time_left(said, context):
    return str(context.time_remaining())


async def test_a_call_follows_the_policy_that_is_in_force_when_it_is_made(tmp_path):
    source = PolicySource(mount(tmp_path, text(timeout="3s", attempts=1), 1))
    async with serving(Echo(_time_left)) as runtime, Channel(runtime.address, policies=source) as channel:
        stub = Stub(channel)
        assert 2.5 < float((await stub.unary()).value) <= 3.1
        mount(tmp_path, text(timeout="7s", attempts=1), 2)
        source.look()
        assert 6.5 < float((await stub.unary()).value) <= 7.1
        assert 1.5 < float((await stub.unary(timeout=2)).value) <= 2.1


async def test_a_method_that_may_be_repeated_is_tried_as_often_as_the_policy_says(tmp_path, monkeypatch):
    from amends.saga.v1 import run_service_pb2 as pb
    from amends.saga.v1.run_service_pb2_grpc import RunServiceStub

    seen: list[str] = []

    class Refusing(grpc.GenericRpcHandler):
        def service(self, details):
            async def refuse(request, context):
                seen.append(details.method.rpartition("/")[2])
                await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")

            return grpc.unary_unary_rpc_method_handler(refuse)

    server = grpc.aio.server(handlers=[Refusing()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    source = PolicySource(mount(tmp_path, text(attempts=3, backoff={"initial": "1ms", "max": "1ms"}), 1))
    try:
        async with Channel(f"127.0.0.1:{port}", policies=source) as channel:
            stub = RunServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.GetRun(pb.GetRunRequest())
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.ResolveRun(pb.ResolveRunRequest())
    finally:
        await server.stop(None)
    assert seen == ["GetRun"] * 3 + ["ResolveRun"]


@pytest.mark.parametrize(
    ("trailing", "pause"),
    [
        ((), None),
        ((("grpc-retry-pushback-ms", "1500"),), timedelta(seconds=1.5)),
        ((("grpc-retry-pushback-ms", "0"),), timedelta(0)),
        ((("grpc-retry-pushback-ms", "-1"),), NEVER),
        ((("grpc-retry-pushback-ms", "soon"),), NEVER),
        ((("grpc-retry-pushback-ms", "9" * 400),), LONGEST),
        ((("grpc-status-details-bin", b"\xff"),), None),
        ((("grpc-status-details-bin", retry_info(20)),), timedelta(seconds=20)),
        ((("grpc-status-details-bin", retry_info(10**11)),), LONGEST),
        ((("grpc-status-details-bin", retry_info(-5)),), timedelta(0)),
    ],
)
def test_what_a_server_asks_for_is_read_and_bounded(trailing, pause):
    assert asked_pause(trailing) == pause


@pytest.mark.parametrize(
    ("pushback", "calls", "at_least"),
    [("300", 2, 0.3), ("-1", 1, 0.0), ("60000", 1, 0.0)],
)
async def test_a_server_that_asks_for_a_pause_gets_it_within_the_policys_bounds(tmp_path, pushback, calls, at_least):
    from amends.saga.v1 import run_service_pb2 as pb
    from amends.saga.v1.run_service_pb2_grpc import RunServiceStub

    seen: list[float] = []

    class Busy(grpc.GenericRpcHandler):
        def service(self, details):
            async def refuse(request, context):
                seen.append(asyncio.get_running_loop().time())
                asked = (("grpc-retry-pushback-ms", pushback),)
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", asked)

            return grpc.unary_unary_rpc_method_handler(refuse)

    server = grpc.aio.server(handlers=[Busy()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    source = PolicySource(mount(tmp_path, text(attempts=2, backoff={"initial": "1ms", "max": "1ms"}), 1))
    try:
        async with Channel(f"127.0.0.1:{port}", policies=source) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await RunServiceStub(channel).GetRun(pb.GetRunRequest())
    finally:
        await server.stop(None)
    assert len(seen) == calls
    assert seen[-1] - seen[0] >= at_least


PROGRAM = """
import asyncio, json, os
from pathlib import Path
from amends_chassis.service import running
from amends_chassis.settings import ServiceSettings
from amends.saga.v1 import run_service_pb2 as pb
from amends.saga.v1.run_service_pb2_grpc import RunServiceStub

async def assemble(runtime):
    stub = RunServiceStub(runtime.channel(os.environ["TARGET"]))
    async def ask():
        while True:
            try:
                await stub.GetRun(pb.GetRunRequest())
            except Exception:
                await asyncio.sleep(0.05)
    runtime.background("asking", ask)

async def main():
    async with running(ServiceSettings(name="asker"), assemble):
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_running_process_follows_a_changed_mount_within_five_seconds(tmp_path):
    """The process is told nothing: its calls carry another deadline once the mounted link was swapped."""
    deadlines: list[float] = []

    class Noting(grpc.GenericRpcHandler):
        def service(self, details):
            async def note(request, context):
                deadlines.append(context.time_remaining())
                await context.abort(grpc.StatusCode.NOT_FOUND, "nothing here")

            return grpc.unary_unary_rpc_method_handler(note)

    server = grpc.aio.server(handlers=[Noting()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    path = mount(tmp_path / "mounted", text(timeout="3s"), 1)
    child = Child.start(
        "asker",
        [sys.executable, "-c", PROGRAM],
        log=tmp_path / "asker.log",
        report=tmp_path / "asker.json",
        environment={"TARGET": f"127.0.0.1:{port}", "AMENDS_RETRY_POLICIES": str(path), "HOME": os.environ["HOME"]},
    )
    try:
        await child.ready()
        await eventually(lambda: deadlines and 2 < deadlines[-1] <= 3.1)
        mount(tmp_path / "mounted", text(timeout="40s"), 2)
        await eventually(lambda: deadlines[-1] > 30, timeout=FIVE)
        assert child.alive
    finally:
        await child.terminate()
        await server.stop(None)
