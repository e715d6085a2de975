"""Starts the processes of this suite in milliseconds: all is imported once, and each of them is forked from here.

Speaks lines of JSON: an order to start on standard input, and on standard output what was started and what has ended.
Started by `world.Nursery` as `python -m tests.faults.nursery`; its children die with it.
"""

import ctypes
import gc
import json
import os
import random
import select
import signal
import sys
from collections.abc import Callable
from typing import Any

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serves until standard input ends."""
    from . import orchestrator_process, participants_process

    roles: dict[str, Callable[[], None]] = {
        "orchestrator": orchestrator_process.main,
        "participants": participants_process.main,
    }
    gc.collect()
    gc.freeze()
    children: dict[int, int] = {}
    say({"ready": os.getpid()})
    buffer = b""
    while True:
        readable, _, _ = select.select([0, *children], [], [])
        for ended in [fd for fd in readable if fd in children]:
            pid = children.pop(ended)
            _, status = os.waitpid(pid, 0)
            os.close(ended)
            say({"ended": pid, "code": os.waitstatus_to_exitcode(status)})
        if 0 in readable:
            data = os.read(0, 65536)
            if not data:
                return
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                order = json.loads(line)
                pid = start(order, roles)
                children[os.pidfd_open(pid)] = pid
                say({"started": order["id"], "pid": pid})


def say(what: dict[str, Any]) -> None:
    """One line for the driver."""
    os.write(1, (json.dumps(what) + "\n").encode())


def start(order: dict[str, Any], roles: dict[str, Callable[[], None]]) -> int:
    """Forks a process of a role; it never comes back here."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.environ.update(order["environment"])
        random.seed()
        roles[order["role"]]()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
