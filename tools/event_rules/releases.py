"""The releases whose events may still be in a log, and their contracts.

Those are the releases that were made within the longest time that a log or an inbox remembers, the one that was in use
before, and every release of which golden events are kept.
"""

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "events"
CONTRACTS = "contracts.binpb"
REMEMBERED = timedelta(days=14)
"""Of the inbox; longer than a broker keeps events, and the longest outage."""


def golden(folder: Path = GOLDEN) -> Iterator[tuple[str, FileDescriptorSet]]:
    """Yield name and contracts of each release of which events were recorded."""
    for file in sorted(folder.glob(f"*/{CONTRACTS}")):
        yield f"the golden events of {file.parent.name}", FileDescriptorSet.FromString(file.read_bytes())


def tagged(root: Path, now: datetime) -> list[str]:
    """Return the tags of releases that were in use within REMEMBERED, oldest first."""
    if not (root / ".git").exists():
        return []  # an archive, which has no history
    fields = "--format=%(refname:short) %(creatordate:unix)"
    shown = _run("git", "-C", str(root), "for-each-ref", "--sort=creatordate", fields, "refs/tags/v*").decode()
    tags = [(name, datetime.fromtimestamp(int(at), UTC)) for name, at in map(str.split, shown.splitlines())]
    older = [name for name, at in tags if at < now - REMEMBERED]
    return older[-1:] + [name for name, at in tags if at >= now - REMEMBERED]


def contracts_at(root: Path, revision: str) -> FileDescriptorSet:
    """Build the contracts of a revision. Raises subprocess.CalledProcessError when there are none that build."""
    with tempfile.TemporaryDirectory() as folder:
        archive = _run("git", "-C", str(root), "archive", revision, "buf.yaml", "protos")
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        built = Path(folder) / "built.binpb"
        _run(os.environ.get("BUF", "buf"), "build", folder, "-o", str(built))
        return FileDescriptorSet.FromString(built.read_bytes())


def _run(program: str, *arguments: str) -> bytes:
    """Return what a program of ours prints. Raises subprocess.CalledProcessError."""
    command = [shutil.which(program) or program, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout  # noqa: S603
