"""The page is true: it is followed word by word, in a copy of its folder, and ends with 12 of 12."""

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

PAGE = ROOT / "docs/tutorial/guard-a-service.md"
EXAMPLE = ROOT / "examples/guarded-service"
PART = re.compile(
    r"```console\n(?P<block>.*?)```|<!-- test: runs until it prints (?P<said>[^>]+) -->\n```sh\n(?P<kept>.*?)```",
    re.DOTALL,
)


class Reader:
    """Somebody with a terminal of their own for each command that stays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "examples" / "guarded-service"
        shutil.copytree(EXAMPLE, self.folder)
        (folder / "protos").symlink_to(ROOT / "protos")
        self.instead = {"/tmp/hotel-db": str(folder / "db"), "50061": str(free_port())}
        self.kept: list[Child] = []
        self.environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def here(self, command: str) -> str:
        for written, meant in self.instead.items():
            command = command.replace(written, meant)
        return command

    def type(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", self.here(command)],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=90,
        )
        return done.stdout

    async def keep(self, command: str, said: str) -> None:
        log = self.folder / f"terminal-{len(self.kept)}.log"
        words = ["bash", "-c", f"exec {self.here(command).strip()}"]
        child = Child.start(
            log.stem, words, log=log, directory=self.folder, environment={"PATH": self.environment["PATH"]}
        )
        self.kept.append(child)

        def printed() -> bool:
            assert child.alive, child.tail()
            return said in log.read_text()

        await eventually(printed, timeout=timedelta(seconds=90), what=said)


@pytest.fixture
async def reader(tmp_path: Path):
    reader = Reader(tmp_path)
    try:
        yield reader
    finally:
        for child in reversed(reader.kept):
            assert await child.terminate() == 0, child.tail()


@pytest.mark.timeout(300)
async def test_the_page_is_followed_to_its_end(reader) -> None:
    last = ""
    for part in PART.finditer(PAGE.read_text()):
        if part["kept"]:
            await reader.keep(part["kept"], part["said"])
            continue
        for command, expected in commands(part["block"]):
            last = reader.type(command)
            compare(command, last, reader.here(expected))
    assert last.splitlines()[-1] == "12 of 12 held"


def test_the_code_on_the_page_is_the_code_of_the_example() -> None:
    files = {"python": (EXAMPLE / "server.py").read_text(), "protobuf": (EXAMPLE / "hotel.proto").read_text()}
    blocks = re.findall(r"```(python|protobuf)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) >= 3
    for language, block in blocks:
        assert bare(block) in bare(files[language]), block


def bare(code: str) -> str:
    """Code without blank lines and indentation, which a page may show otherwise."""
    return "\n".join(line.strip() for line in code.splitlines() if line.strip())
