"""A real Kafka for tests: one KRaft node from the jars of a distribution, where there is one and Java.

Started by the fixture `kafka`, once a session.
"""

import os
import shutil
import socket
import subprocess
import uuid
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from amends_embedded import Child
from amends_embedded.process import until

HOW_TO_GET = "needs Java and KAFKA_HOME, the folder of an Apache Kafka distribution (with libs/*.jar)"
START_TIMEOUT = timedelta(seconds=60)
_SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={logs}
offsets.topic.replication.factor=1
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
log.flush.interval.messages=1
"""


class Kafka:
    """A running broker. Make it with `await Kafka.start(folder, libraries)`, end it with `await stop()`."""

    def __init__(self, home: Path, libraries: Path) -> None:
        self.home = home
        self.port = 0
        self._java = ("java", "-Xmx384m", "-XX:+UseSerialGC", "-cp", f"{libraries}/*")
        self._child: Child | None = None

    @classmethod
    async def start(cls, home: Path, libraries: Path) -> Self:
        """Start a broker whose log is in `home`, from the jars in `libraries`."""
        server = cls(home, libraries)
        server.port, controller = _free_ports(2)
        settings = home / "server.properties"
        settings.write_text(_SETTINGS.format(port=server.port, controller=controller, logs=home / "logs"))
        server._format()
        await server.restart()
        return server

    def _format(self) -> None:
        command = [*self._java, "kafka.tools.StorageTool", "format", "-t", uuid.uuid4().hex[:22], "-c"]
        settings = str(self.home / "server.properties")
        subprocess.run([*command, settings], check=True, capture_output=True)  # noqa: S603 - our own command

    def forget(self) -> None:
        """Lose all that was stored. Only while it is stopped."""
        shutil.rmtree(self.home / "logs")
        self._format()

    @property
    def url(self) -> str:
        """Return the address for AMENDS_BROKER."""
        return f"kafka://127.0.0.1:{self.port}"

    async def restart(self) -> None:
        """Stop the broker if it runs, and start it again on the same port."""
        await self.stop()
        command = [*self._java, "kafka.Kafka", str(self.home / "server.properties")]
        child = self._child = Child.start("kafka", command, log=self.home / "kafka.log")
        await until(lambda: not child.alive or self._listens(), START_TIMEOUT)
        if not self._listens():
            raise RuntimeError(f"Kafka did not start\n{child.tail()}")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """kill -9 of the broker. `restart()` brings it back."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    async def stop(self) -> None:
        """Stop the broker. May be called twice."""
        child, self._child = self._child, None
        if child is not None:
            await child.terminate()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def libraries() -> Path | None:
    """Return the folder with Kafka's jars; None where there is none, or no Java."""
    home = os.environ.get("KAFKA_HOME")
    if not home or shutil.which("java") is None:
        return None
    found = Path(home) / "libs"
    return found if found.is_dir() else None


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
