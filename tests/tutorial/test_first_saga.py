"""The tutorial is true: its commands are run against a real `amends dev`, and their output is compared with the page.

In a block of the page `$` begins a command and `...` stands for any text. An id in a command means the run that was
printed last. Comments of the form `test: ...` say what the reader does in another terminal.
"""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from amends_embedded import Child
from amends_testkit.waiting import eventually

from .pages import ROOT, commands, compare, free_port

PAGE = ROOT / "docs/tutorial/first-saga.md"
RUN = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
PART = re.compile(r"```console\n(?P<block>.*?)```|<!-- test: (?P<deed>[a-z ]+) -->", re.DOTALL)


class Reader:
    """Somebody who follows the page, with three terminals in a folder of their own."""

    def __init__(self, folder):
        self.folder = folder
        self.services_port = free_port()
        self.services: Child | None = None
        self.run_id = ""
        self.meanwhile: asyncio.Task[None] | None = None
        self.dev = self._start("dev", "-m", "amends_cli", "dev", "--port", "0", "--data", str(folder / "data"))
        self.address = ""

    def _start(self, name, *arguments):
        (self.folder / f"{name}.log").unlink(missing_ok=True)
        return Child.start(name, [sys.executable, *arguments], log=self.folder / f"{name}.log", directory=self.folder)

    async def look_for(self, child, pattern):
        """Wait until the log of a process has `pattern`; return its group."""

        def found():
            assert child.alive, child.tail()
            return re.search(pattern, child.log.read_text())

        return (await eventually(found, timeout=timedelta(seconds=60), what=pattern))[1]

    async def start_the_services(self, *how):
        known = self.services is not None
        self.services = self._start("services", str(self.folder / "server.py"), str(self.services_port), *how)
        await self.look_for(self.services, r"listen on (\S+)")
        if known:  # the orchestrator tries again within two seconds, sooner than a person types the next command
            await eventually(self.connected, what="a connection from the orchestrator")

    def connected(self):
        """Whether somebody is connected to the services; 01 is an established connection."""
        sockets = "".join(Path(f"/proc/net/{family}").read_text() for family in ("tcp", "tcp6"))
        return re.search(rf":{self.services_port:04X} \w+:\w+ 01 ", sockets)

    async def start_the_slow_services(self):
        """Stop them, start them slow, and stop them again when the hotel has booked, during the next command."""
        assert self.services is not None
        assert await self.services.terminate() == 0
        await self.start_the_services("slow")
        services = self.services

        async def stop():
            await self.look_for(services, "(booked room 4 in Oslo)")
            assert await services.terminate() == 0
            assert "Traceback" not in services.log.read_text()

        self.meanwhile = asyncio.create_task(stop())

    def type(self, command):
        """Run a command in the third terminal and return everything that it prints."""
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "AMENDS_ADDRESS": self.address,
            "COLUMNS": "300",
        }
        command = RUN.sub(self.run_id, command)
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=90,
        )
        self.run_id = next(iter(RUN.findall(done.stdout)), self.run_id)
        return done.stdout


@pytest.fixture
async def reader(tmp_path):
    shutil.copytree(ROOT / "examples/own-services", tmp_path, dirs_exist_ok=True)
    reader = Reader(tmp_path)
    participants = tmp_path / "participants.yaml"
    participants.write_text(participants.read_text().replace("127.0.0.1:50051", f"127.0.0.1:{reader.services_port}"))
    try:
        reader.address = await reader.look_for(reader.dev, r"listens on (127\.0\.0\.1:\d+)")
        await reader.start_the_services()
        yield reader
    finally:
        await reader.dev.terminate()
        if reader.services is not None:
            await reader.services.terminate()


@pytest.mark.timeout(300)
async def test_every_command_of_the_tutorial_prints_what_the_page_says(reader):
    typed = 0
    for part in PART.finditer(PAGE.read_text()):
        if part["deed"]:
            await getattr(reader, part["deed"].replace(" ", "_"))()
            continue
        for command, expected in commands(part["block"]):
            compare(command, await asyncio.to_thread(reader.type, command), expected)
            typed += 1
        if reader.meanwhile is not None:
            await reader.meanwhile
            reader.meanwhile = None
    assert typed >= 8


async def test_two_servers_never_share_a_port(reader):
    second = reader._start("second", str(reader.folder / "server.py"), str(reader.services_port))
    assert await second.wait(timedelta(seconds=30)) == 1
    assert f"port {reader.services_port} is taken" in second.tail()
