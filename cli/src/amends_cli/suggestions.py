"""Names for the completion of a shell: of runs, sagas and namespaces, asked of the orchestrator.

The shell waits for the answer, so the question has a short deadline, and after any error nothing is suggested.
Called by the shell's completion alone.
"""

import contextlib
import os
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from amends_cli import connection
from amends_cli.failure import CliError

QUICKLY = timedelta(seconds=1)
MOST = 100


def namespaces(incomplete: str) -> list[str]:
    """Suggest namespaces that hold a saga or a participant."""
    return _asked(lambda server: {one.namespace for one in (*_sagas(server), *_participants(server))}, incomplete)


def sagas(incomplete: str) -> list[str]:
    """Suggest the names of sagas in all namespaces."""
    return _asked(lambda server: {one.name for one in _sagas(server)}, incomplete)


def runs(incomplete: str) -> list[str]:
    """Suggest the ids of the newest runs."""
    return _asked(lambda server: [run.run_id for run in _runs(server)], incomplete)


def resources(incomplete: str) -> list[str]:
    """Suggest the ids of the newest runs, and saga/NAME, participant/NAME."""

    def named(server: Any) -> Iterable[str]:
        yield from (f"saga/{one.name}" for one in _sagas(server))
        yield from (f"participant/{one.name}" for one in _participants(server))
        if "/" not in incomplete:
            yield from (run.run_id for run in _runs(server))

    return _asked(named, incomplete)


def _asked(ask: Callable[[Any], Iterable[str]], incomplete: str) -> list[str]:
    import grpc

    with contextlib.suppress(CliError, grpc.RpcError, OSError):
        with connection.connect(os.environ.get(connection.VARIABLE), silent=True) as server:
            names = [name for name in ask(server) if name.startswith(incomplete)]
        return list(dict.fromkeys(names))[:MOST]
    return []


def _sagas(server: Any) -> Iterable[Any]:
    from amends.saga.v1 import definition_service_pb2 as api

    found: Iterable[Any] = server.definitions.ListSagas(api.ListSagasRequest(), timeout=QUICKLY.total_seconds()).sagas
    return found


def _participants(server: Any) -> Iterable[Any]:
    from amends.saga.v1 import definition_service_pb2 as api

    request = api.ListParticipantsRequest()
    found: Iterable[Any] = server.definitions.ListParticipants(request, timeout=QUICKLY.total_seconds()).participants
    return found


def _runs(server: Any) -> Iterable[Any]:
    from amends.saga.v1 import run_service_pb2 as api

    found: Iterable[Any] = server.runs.ListRuns(
        api.ListRunsRequest(page_size=MOST), timeout=QUICKLY.total_seconds()
    ).runs
    return found
