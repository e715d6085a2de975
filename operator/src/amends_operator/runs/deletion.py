"""Deleted SagaRuns: their runs are compensated first, let go by policy, or, after a stated time, with a warning.

The ways out, from the mildest: `spec.onDeletion: Abandon` (or the annotation amends.dev/on-delete: abandon) lets the
resource go at once and leaves the run to the orchestrator; `kubectl patch` of metadata.finalizers does it without the
operator. None of them stops the run: that is for `amends resolve`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import structlog

from amends.saga.v1 import run_pb2
from amends.saga.v1 import run_service_pb2 as pb
from amends_operator.kube.client import Client, NotFoundError
from amends_operator.kube.events import Events
from amends_operator.kube.objects import GROUP, Body, Key, Kind, Objects
from amends_operator.orchestrator import Orchestrator, RefusedError, Seen
from amends_operator.runs.values import run_key
from amends_operator.runs.view import has_ended

FINALIZER = "amends.dev/compensate"
ACTOR = "amends-operator"
REASON = "the SagaRun was deleted"
ABANDONED = "runs.abandoned"
UNDONE = "runs.deleted_before_finalizer"
log = structlog.get_logger(__name__)


class Deletion:
    """The end of SagaRuns that still have a run."""

    def __init__(
        self, client: Client, objects: Objects, orchestrator: Orchestrator, events: Events, patience: timedelta
    ) -> None:
        self._client = client
        self._objects = objects
        self._orchestrator = orchestrator
        self._events = events
        self._patience = patience

    async def look(self, key: Key, body: Body) -> Seen | None:
        """Asks for compensation where it was not asked for; the run while it has not ended, None when it is let go.

        Raises AwayError, ApiError.
        """
        if _abandons(body):
            await self._abandon(key, body, "onDeletion says so")
            return None
        seen = await self._run(key, body)
        if seen is None or has_ended(seen.run):
            await self.release(key, body)
            return None
        if self._overdue(body):
            await self._abandon(key, body, f"its compensation has not ended within {self._patience}")
            return None
        return await self._compensate(key, body, seen)

    async def vanished(self, key: Key) -> None:
        """The objects of a name that are gone. Raises AwayError, ApiError."""
        gone = self._objects.deleted.get(key, [])
        while gone:
            await self.unguarded(key, gone[0])
            gone.pop(0)
        self._objects.deleted.pop(key, None)

    async def unguarded(self, key: Key, body: Body) -> None:
        """One that goes without our finalizer: its run, if there is one, is compensated all the same.

        Not if the finalizer was there once: then a person took it off, or we did, at the end of the run. It was there
        before the status named the run. Raises AwayError, ApiError.
        """
        metadata = body["metadata"]
        guarded = FINALIZER in (metadata.get("finalizers") or ())
        guarded_once = "deletionTimestamp" in metadata and (body.get("status") or {}).get("runId")
        if guarded or guarded_once or _abandons(body):
            return
        seen = await self._run(key, body)
        if seen is not None and not has_ended(seen.run):
            log.warning(UNDONE, run=key.full_name, run_id=seen.run.run_id)
            await self._compensate(key, body, seen)

    async def release(self, key: Key, body: Body) -> None:
        """Takes the finalizer off. Raises ApiError."""
        metadata = body["metadata"]
        finalizers = [name for name in metadata.get("finalizers") or [] if name != FINALIZER]
        patch = {"metadata": {"finalizers": finalizers or None, "resourceVersion": metadata["resourceVersion"]}}
        try:
            self._objects.written(Kind.RUN, await self._client.patch(key, patch))
        except NotFoundError:
            return

    async def _run(self, key: Key, body: Body) -> Seen | None:
        run_id = (body.get("status") or {}).get("runId")
        try:
            if run_id:
                return await self._orchestrator.run(run_id)
            return await self._orchestrator.run_of_key(key.namespace, run_key(body["metadata"]["uid"]))
        except RefusedError as error:
            if error.code is grpc.StatusCode.NOT_FOUND:
                return None
            raise

    async def _compensate(self, key: Key, body: Body, seen: Seen) -> Seen:
        run = seen.run
        try:
            if run.state == run_pb2.RUN_STATE_RUNNING:
                await self._orchestrator.cancel(run.run_id, REASON, ACTOR)
            elif run.state == run_pb2.RUN_STATE_PARKED and "compensate" in run.parked.resolutions:
                request = pb.ResolveRunRequest(
                    run_id=run.run_id,
                    resolution=pb.RESOLUTION_COMPENSATE,
                    expected_seq=run.parked.seq,
                    reason=REASON,
                    actor=ACTOR,
                )
                await self._orchestrator.resolve(request)
            else:
                return seen
        except RefusedError as error:
            message = f"it cannot be undone now ({error.reason}: {error}); the resource goes when the run has ended"
            await self._events.tell(key, body, "CompensationRefused", message, warning=True, once=True)
            return seen
        return await self._orchestrator.run(run.run_id)

    async def _abandon(self, key: Key, body: Body, why: str) -> None:
        run_id = (body.get("status") or {}).get("runId", "")
        log.warning(ABANDONED, run=key.full_name, run_id=run_id, why=why)
        message = f"let go without waiting for run {run_id}: {why}; the orchestrator goes on with it"
        await self._events.tell(key, body, "Abandoned", message, warning=True)
        await self.release(key, body)

    def _overdue(self, body: Body) -> bool:
        text: Any = body["metadata"]["deletionTimestamp"]
        since = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        return datetime.now(UTC) - since > self._patience


def _abandons(body: Body) -> bool:
    annotations = body["metadata"].get("annotations") or {}
    said = annotations.get(f"{GROUP}/on-delete", "") or (body.get("spec") or {}).get("onDeletion", "")
    return isinstance(said, str) and said.lower() == "abandon"
