"""`python -m amends_orchestrator.worker.main SECONDS BYTES`: reads pieces of work from its input, writes results.

Started by `process`. It has no secrets, no connections and no files but its pipes; it ends when its input ends.
"""

from __future__ import annotations

import os
import resource
import sys
import traceback
from typing import Any, BinaryIO

from amends_contracts.wellknown import well_known_names

from amends_orchestrator.worker.frames import LENGTHS, pack, unpack
from amends_orchestrator.worker.jobs import JOBS


def main() -> None:
    """Work until the input ends."""
    seconds, memory = float(sys.argv[1]), int(sys.argv[2])
    well_known_names()  # Protobuf loads modules for it, and at the limit that fails as an ImportError.
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between the answers
    with answers, os.fdopen(0, "rb") as asked:
        while (frame := _read(asked)) is not None:
            _limit_processor(seconds)
            answer = _do(*frame)
            answers.write(answer)
            answers.flush()


def _read(asked: BinaryIO) -> tuple[int, bytes] | None:
    lengths = asked.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        return None
    size, text = LENGTHS.unpack(lengths)
    body = asked.read(size)
    return (text, body) if len(body) == size else None


def _limit_processor(seconds: float) -> None:
    """Allow this process that much more processor time; after that the kernel ends it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime + seconds) + 1, hard))


def _do(text: int, body: bytes) -> bytes:
    try:
        head, blobs = unpack(text, body)
        return pack(*JOBS[head["work"]](head, blobs))
    except MemoryError:
        return pack({"failed": "memory"})
    except Exception as error:  # the orchestrator logs it and starts a new process
        trace: dict[str, Any] = {"failed": type(error).__name__, "trace": traceback.format_exc(limit=-20)[-8_000:]}
        return pack(trace)


if __name__ == "__main__":
    main()
