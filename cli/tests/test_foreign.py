"""`amends dev` drives a server that has never heard of us: etcd, by a FileDescriptorSet alone."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import grpc.aio
import pytest
from amends_embedded import Child
from amends_testkit.waiting import eventually
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from .devserver import dev

ROOT = Path(__file__).parents[2]
FILES = ROOT / "examples/etcd"
PAGE = ROOT / "docs/how-to/use-a-contract-you-cannot-annotate.md"
ETCD = shutil.which("etcd", path=os.pathsep.join([os.environ.get("KUBEBUILDER_ASSETS", ""), os.environ["PATH"]]))
NO_ETCD = "needs etcd: put it on PATH, or set KUBEBUILDER_ASSETS to a folder with it"
pytestmark = pytest.mark.skipif(ETCD is None, reason=NO_ETCD)
NO_LEASE = 4711


@pytest.fixture
async def etcd(tmp_path: Path) -> AsyncIterator[str]:
    """A fresh etcd; its address."""
    client, peers = (f"127.0.0.1:{port}" for port in _free_ports(2))
    command = [
        *(str(ETCD), f"--data-dir={tmp_path / 'etcd'}", "--unsafe-no-fsync"),
        *(f"--listen-client-urls=http://{client}", f"--advertise-client-urls=http://{client}"),
        *(f"--listen-peer-urls=http://{peers}", f"--initial-advertise-peer-urls=http://{peers}"),
        f"--initial-cluster=default=http://{peers}",
    ]
    child = Child.start("etcd", command, log=tmp_path / "etcd.log")
    try:
        async with grpc.aio.insecure_channel(client) as channel:

            async def answers() -> bool:
                assert child.alive, child.tail()
                try:
                    await channel.unary_unary("/etcdserverpb.KV/Range")(b"\x0a\x01x", timeout=1)
                except grpc.aio.AioRpcError:
                    return False
                return True

            await eventually(answers, timeout=timedelta(seconds=60), what="etcd")
        yield client
    finally:
        child.kill()


@pytest.fixture
def contracts(tmp_path: Path) -> Path:
    """The contract as a FileDescriptorSet, made by the command of the page: etcd has no reflection."""
    shutil.copytree(FILES, tmp_path, dirs_exist_ok=True)
    [command] = [words for words in _commands() if words[:3] == ["python", "-m", "grpc_tools.protoc"]]
    subprocess.run([sys.executable, *command[1:]], check=True, cwd=tmp_path)
    return tmp_path / "etcd.binpb"


def _commands() -> list[list[str]]:
    """The command lines of the page."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


async def test_puts_into_etcd_are_undone_by_deletes(run, tmp_path: Path, etcd: str, contracts: Path) -> None:
    (tmp_path / "saga.yaml").write_text((FILES / "saga.yaml").read_text().replace("127.0.0.1:2379", etcd))
    named = {"name": "db-1", "address": "10.0.0.7:5432"}
    async with dev(tmp_path) as (_, address):
        at = ("--address", address)
        apply, start = (words[1:] for words in _commands() if words[0] == "amends" and words[1] != "dev")
        applied = await run(*apply, *at)
        assert applied.code == 0, applied
        good = await run(*(word for word in start if word != "--watch"), "--wait", "-o", "json", *at)
        assert good.code == 0, good
        run_id = json.loads(good.out)["runId"]
        assert await _all(etcd, contracts) == {"addresses/db-1": f"10.0.0.7:5432 of {run_id}", "claims/db-1": run_id}
        no_lease = json.dumps({**named, "name": "db-2", "lease": NO_LEASE})
        bad = await run("start", "register", "-i", no_lease, "--watch", *at)
        assert bad.code == 4, bad
        assert bad.out.splitlines()[-1].startswith("COMPENSATED: publish was rejected")
        assert "lease not found" in bad.out
        assert set(await _all(etcd, contracts)) == {"addresses/db-1", "claims/db-1"}


async def _all(etcd: str, contracts: Path) -> dict[str, str]:
    """Everything in etcd, read without us."""
    pool = _pool(contracts)
    request, response = (
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"etcdserverpb.Range{name}"))
        for name in ("Request", "Response")
    )
    async with grpc.aio.insecure_channel(etcd) as channel:
        call = channel.unary_unary("/etcdserverpb.KV/Range", request.SerializeToString, response.FromString)
        answer = await call(request(key=b"\0", range_end=b"\0"), timeout=5)
    return {pair.key.decode(): pair.value.decode() for pair in answer.kvs}


def _pool(contracts: Path) -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(contracts.read_bytes()).file:
        pool.Add(file)
    return pool


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
