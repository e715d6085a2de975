"""What the architecture tests read: the repository's tracked files, and the Python modules among them, parsed once."""

import ast
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Module:
    """One Python file of the repository; `path` is relative to its root."""

    path: str
    text: str
    tree: ast.Module

    @classmethod
    def parse(cls, path: str, text: str) -> "Module":
        return cls(path, text, ast.parse(text))

    @property
    def is_test(self) -> bool:
        return "tests/" in self.path


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def tracked() -> list[str]:
    """Every file that git knows or would add, relative to the root; generated and ignored ones are left out."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in names if (ROOT / name).is_file()]


@pytest.fixture(scope="session")
def modules(tracked: list[str]) -> list[Module]:
    """Every Python file of the repository."""
    return [Module.parse(name, (ROOT / name).read_text()) for name in tracked if name.endswith(".py")]


@pytest.fixture(scope="session")
def module_of() -> type[Module]:
    """To make a module out of a sample."""
    return Module
