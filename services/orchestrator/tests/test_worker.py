"""The worker process: what it costs, what bounds it, and that nothing is lost with it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import uvloop
from amends_orchestrator.calls.targets import TargetRules
from amends_orchestrator.worker.client import InForce, WorkerClient
from amends_orchestrator.worker.frames import FrameError, pack, unpack
from amends_orchestrator.worker.limits import WorkLimits
from amends_orchestrator.worker.process import BusyError, WorkerProcess, WorkError, _converse
from amends_saga.definition import Document
from amends_testkit.waiting import eventually

POLICY = Document("p.yaml", "apiVersion: amends.dev/v1alpha1\nkind: RetryPolicy\nmetadata: {name: a}\nspec: {}\n")
MANY = [Document(f"{i}.yaml", "[" + "[]," * 45_000 + "]") for i in range(2)]
"""About a second of processor time, and 50 MiB."""


@asynccontextmanager
async def a_worker(**limits: object) -> AsyncIterator[WorkerProcess]:
    worker = WorkerProcess(WorkLimits(**limits))
    try:
        yield worker
    finally:
        await worker.close()


def checker(worker: WorkerProcess) -> WorkerClient:
    return WorkerClient(worker, TargetRules())


async def works(worker: WorkerProcess) -> bool:
    result = await checker(worker).check([POLICY], "shop", InForce())
    return result.ok and result.resources == [("RetryPolicy", "shop", "a")]


async def test_there_is_no_process_before_there_is_work_and_none_when_there_has_been_none_for_long():
    async with a_worker(idle=timedelta(milliseconds=50)) as worker:
        assert worker.pid is None
        assert await works(worker)
        await eventually(lambda: worker.pid is None)
        assert await works(worker)


async def test_one_process_does_all_the_work():
    async with a_worker() as worker:
        assert await works(worker)
        pid = worker.pid
        assert all(await asyncio.gather(*(works(worker) for _ in range(5))))
        assert worker.pid == pid


async def test_work_that_takes_too_long_is_told_and_the_next_has_a_new_process():
    async with a_worker(wall=timedelta(seconds=10)) as worker:
        assert await works(worker)
        pid = worker.pid
        worker.limits = WorkLimits(wall=timedelta(milliseconds=20))
        with pytest.raises(WorkError, match=r"The check took longer than 0\.02 s\."):
            await checker(worker).read(MANY, "shop")
        worker.limits = WorkLimits()
        assert await works(worker)
        assert worker.pid != pid


async def test_work_that_needs_too_much_processor_time_is_ended_by_the_kernel_and_told():
    async with a_worker(processor=timedelta(seconds=-1), wall=timedelta(minutes=1)) as worker:
        with pytest.raises(WorkError, match="of processor time"):
            await read_often(worker)
        worker.limits = WorkLimits()
        assert await works(worker)


async def read_often(worker: WorkerProcess) -> None:
    """The kernel counts whole seconds: a process that has used one already has none left."""
    for _ in range(10):
        await checker(worker).read(MANY, "shop")


async def test_work_that_needs_too_much_memory_is_told():
    async with a_worker(memory=56 * 1024 * 1024) as worker:
        assert await works(worker)
        with pytest.raises(WorkError, match="memory"):
            await checker(worker).read(MANY, "shop")
        assert await works(worker)


async def test_a_process_that_dies_is_told_and_replaced():
    async with a_worker() as worker:
        assert await works(worker)
        assert worker.pid is not None
        os.kill(worker.pid, 9)
        with pytest.raises(WorkError, match="ended its process"):
            await works(worker)
        assert await works(worker)


async def test_a_process_that_died_without_work_is_replaced_before_the_next():
    async with a_worker() as worker:
        assert await works(worker)
        process = worker._process
        os.kill(process.pid, signal.SIGKILL)
        await eventually(process.stdin.is_closing)
        assert await works(worker)
        assert worker.pid != process.pid


def test_a_process_that_dies_as_soon_as_it_is_started_is_told_by_uvloop_too() -> None:
    async def dead_at_once() -> None:
        async with a_worker() as worker:
            process = await worker._start()
            process.kill()
            await process.wait()
            with pytest.raises(EOFError):
                await _converse(process, b"work")

    uvloop.run(dead_at_once())


async def test_who_waits_no_more_leaves_no_answer_for_the_next():
    async with a_worker() as worker:
        assert await works(worker)
        asked = asyncio.create_task(checker(worker).read(MANY, "shop"))
        await asyncio.sleep(0.05)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert await works(worker)


async def test_more_than_may_wait_is_refused():
    async with a_worker(waiting=2) as worker:
        results = await asyncio.gather(*(worker.do({"work": "build"}, [b""]) for _ in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [tuple, tuple, BusyError]


async def test_work_that_nobody_foresaw_is_told_without_its_text():
    async with a_worker() as worker:
        with pytest.raises(WorkError, match="because of a defect"):
            await worker.do({"work": "nothing of the kind"})


async def test_the_process_is_given_no_secrets(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AMENDS_DATABASE_URL", "postgres://secret")
    async with a_worker() as worker:
        assert await works(worker)
        assert b"secret" not in environment(worker)


async def test_an_idle_process_is_small():
    async with a_worker() as worker:
        assert await works(worker)
        assert resident(worker) < 64


def environment(worker: WorkerProcess) -> bytes:
    return Path(f"/proc/{worker.pid}/environ").read_bytes()


def resident(worker: WorkerProcess) -> int:
    """MiB that the process has in memory."""
    status = Path(f"/proc/{worker.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) // 1024


def test_frames_keep_what_is_put_in():
    packed = pack({"a": ["\u00e9", 1, None]}, [b"", b"\0\xff"])
    assert unpack(int.from_bytes(packed[8:12]), packed[12:]) == ({"a": ["\u00e9", 1, None]}, [b"", b"\0\xff"])


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b'{"head": {}, "blobs": [4]}', b"[" * 10_000])
def test_bytes_that_are_no_frame_are_refused(body: bytes):
    with pytest.raises(FrameError):
        unpack(len(body), body)
