"""Builds the servers of other languages: all at once, beside the tests that need none of them."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from amends_embedded import Child

HERE = Path(__file__).parent
BUILD = {
    "go": ("go", "build", "-o", "server", "."),
    "java": ("mvn", "--quiet", "--batch-mode", "dependency:copy-dependencies"),
    "node": ("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"),
}
START = {
    "go": ("./server", "{contract}"),
    "java": ("java", "-XX:TieredStopAtLevel=1", "-cp", "lib/*", "Stock.java", "{contract}"),
    "node": ("node", "server.js", str(HERE / "contracts")),
}
CHEAPER = {"CGO_ENABLED": "0"}
"""Without C, Go's own network code does, and gcc has nothing to compile."""
LONGEST = timedelta(minutes=14)
"""A first build compiles or downloads everything; later ones find it in the toolchains' own caches."""


@dataclass(slots=True)
class Builds:
    """Servers that are being built, or are."""

    root: Path
    contract: bytes
    """The FileDescriptorSet that the servers serve."""
    running: dict[str, Child] = field(default_factory=dict)

    def start(self, language: str) -> None:
        """Start to build a language's server; nothing happens without its toolchain."""
        if shutil.which(BUILD[language][0]) is None:
            return
        folder = self.root / language
        shutil.copytree(HERE / "servers" / language, folder)
        (folder / "contract.binpb").write_bytes(self.contract)
        log = self.root / f"{language}.log"
        self.running[language] = Child.start(language, BUILD[language], log=log, environment=CHEAPER, directory=folder)

    def serve(self, language: str) -> subprocess.Popen[str]:
        """Start a language's server once it is built; it prints its port.

        Skips the test without the toolchain. Where the toolchain is, a failed build is a failed test.
        """
        child = self.running.get(language)
        if child is None:
            pytest.skip(f"needs {BUILD[language][0]} on PATH")
        try:
            code = child.process.wait(LONGEST.total_seconds())
        except subprocess.TimeoutExpired:
            pytest.fail(f"{language}: the server was not built within {LONGEST}\n{child.tail()}")
        if code != 0:
            pytest.fail(f"{language}: the server could not be built\n{child.tail()}")
        folder = self.root / language
        command = [word.format(contract=folder / "contract.binpb") for word in START[language]]
        return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=sys.stderr, text=True)

    def stop(self) -> None:
        """End what is still being built, with all that it started."""
        for child in self.running.values():
            if child.alive:
                os.killpg(child.pid, signal.SIGKILL)
            child.process.wait()
