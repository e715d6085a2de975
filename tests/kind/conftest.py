"""One cluster for all tests of this folder, made from a clone of the working tree's commit, and removed afterwards."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from amends_delivery.kind.place import PROGRAMS, KindCluster
from amends_demo.shop import Shop

from .cluster import Clone, say, visiting

ROOT = Path(__file__).resolve().parents[2]
NEEDS = (*PROGRAMS, "grpcurl")


REUSED = os.environ.get("KIND_CLONE")
"""A clone that KEEP_KIND=1 left, with its cluster: for whoever works on these tests."""


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone, and no cluster yet. What is not committed is not in it."""
    missing = [name for name in NEEDS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)} on PATH")
    if subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("needs a container engine: `docker info` must answer")
    if REUSED:
        return Clone(Path(REUSED), KindCluster.read(Path(REUSED)))
    root = tmp_path_factory.mktemp("kind") / "amends"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(root)], check=True)
    if (root / ".git" / "shallow").exists():
        _make_whole(root)
    cluster = KindCluster.read(root)
    if cluster.exists:
        pytest.exit(f"the cluster {cluster.name} is there already, and these tests begin without: make kind-down", 1)
    return Clone(root, cluster)


def _make_whole(root: Path) -> None:
    """What a CI checks out may be shallow, and its history cannot be pushed: begin another one with the same files."""
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.com")
    for command in (("checkout", "--quiet", "--orphan", "whole"), ("commit", "--quiet", "--message", "what is tested")):
        subprocess.run(["git", *identity, *command], cwd=root, check=True)
    (root / ".git" / "shallow").unlink()


@pytest.fixture(scope="session")
def clone(fresh: Clone) -> Iterator[Clone]:
    """The clone with the cluster up. KEEP_KIND=1 leaves it there."""
    subprocess.run([sys.executable, "-m", "amends_delivery", "images"], cwd=fresh.root, check=True)
    began = time.monotonic()
    try:
        subprocess.run([sys.executable, "-m", "amends_delivery", "kind-up"], cwd=fresh.root, check=True)
        up_after = time.monotonic() - began
        say(f"kind-up took {up_after:.0f} s, with images built")
        fresh.up_after = up_after
        yield fresh
    finally:
        if os.environ.get("KEEP_KIND") == "1":
            say(f"kept: KIND_CLONE={fresh.root}")
        else:
            fresh.cluster.delete()


@pytest.fixture
async def shop(clone: Clone) -> AsyncIterator[Shop]:
    async with visiting() as stubs:
        yield stubs
