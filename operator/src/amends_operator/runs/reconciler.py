"""Reconciles SagaRuns: looks at the object and its run, asks `next_step` what is to be done, does it, and looks again.

A run that ends within `quick` is written once. A slower one gets the finalizer first, then its status at every look
that finds something new; looks grow rarer while nothing happens. Called by the work queue.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import structlog
from amends_resilience import Backoff

from amends_operator.kube.client import ApiError, ConflictError, NotFoundError
from amends_operator.kube.objects import Body, Key, ResourceKind
from amends_operator.orchestrator import AwayError, OrchestratorRefusedError
from amends_operator.queue import RetryLaterError
from amends_operator.runs.actions import RunActions
from amends_operator.runs.next_step import next_step, unreachable
from amends_operator.runs.observed import Observed, RunLimits
from amends_operator.runs.steps import CarryOut, Follow, Look, Rest, StartRun, TryAgain, Undo
from amends_operator.runs.values import key_of_run

POSTPONED = "runs.status_postponed"
_ROUNDS = 20
"""More than any look needs: one that goes on is a defect, and is tried again with back-off instead of for ever."""
_log = structlog.get_logger(__name__)


class RunReconciler:
    """Brings SagaRuns and runs together."""

    def __init__(self, actions: RunActions, limits: RunLimits) -> None:
        self._actions = actions
        self._objects = actions.objects
        self._limits = limits
        self._looks = Backoff(initial=timedelta(milliseconds=250), maximum=limits.slowest_look, multiplier=1.5)
        self._unchanged: dict[Key, int] = {}

    async def reconcile(self, key: Key) -> timedelta | None:
        """Do what the object as it is now needs; return when to look again, None for not before it changes.

        Raises RetryLaterError when the orchestrator or the API server is away, or the object has changed meanwhile.
        """
        body = self._objects.get(key)
        try:
            await self._bury(key)
            if body is not None:
                return await self._work(key, self._observe(key, body))
            self._forget(key)
            return None
        except AwayError as error:
            await self._say_unreachable(key, str(error))
            raise RetryLaterError(str(error)) from None
        except NotFoundError:
            if body is not None:
                self._objects.vanished(ResourceKind.RUN, body)
            return None
        except ConflictError as error:
            await self._read_again(key, body)
            raise RetryLaterError(str(error), timedelta(milliseconds=50)) from None
        except (ApiError, OrchestratorRefusedError) as error:
            raise RetryLaterError(str(error)) from None

    async def _bury(self, key: Key) -> None:
        """Do what objects of this name need that are gone."""
        gone = self._objects.deleted.get(key, [])
        while gone:
            await self._work(key, self._observe(key, gone[0], gone=True))
            gone.pop(0)
        self._objects.deleted.pop(key, None)

    async def _work(self, key: Key, seen: Observed) -> timedelta | None:
        changed = False
        for _ in range(_ROUNDS):
            for step in next_step(seen):
                match step:
                    case Rest(after):
                        self._forget(key)
                        return after
                    case Follow():
                        return self._pause(key, changed)
                    case TryAgain(why):
                        raise RetryLaterError(why)
                    case Look() | StartRun() | CarryOut() | Undo():
                        seen = await self._actions.ask(key, seen, step)
                    case _:
                        changed |= await self._actions.write(key, seen.body, step)
                        if not seen.gone:
                            current = self._objects.get(key)
                            if current is None:
                                self._forget(key)
                                return None
                            seen = replace(seen, body=current)
        raise RetryLaterError("a look at a SagaRun did not come to an end")

    def _observe(self, key: Key, body: Body, *, gone: bool = False) -> Observed:
        seen = Observed(body, self._actions.statuses.now(), self._limits, gone=gone)
        matters = seen.names_its_key and (gone or seen.deleted)
        return replace(seen, shared=matters and self._is_shared(key, seen))

    def _is_shared(self, key: Key, seen: Observed) -> bool:
        """Return whether another SagaRun that is not deleted shows the same run."""
        return any(
            key_of_run(other) == seen.run_key
            and other["metadata"]["uid"] != seen.metadata["uid"]
            and "deletionTimestamp" not in other["metadata"]
            for _, other in self._objects.of(ResourceKind.RUN, key.namespace)
        )

    def _pause(self, key: Key, changed: bool) -> timedelta:
        self._unchanged[key] = 0 if changed else self._unchanged.get(key, 0) + 1
        return self._looks.ceiling(self._unchanged[key] + 1)

    def _forget(self, key: Key) -> None:
        self._unchanged.pop(key, None)

    async def _say_unreachable(self, key: Key, why: str) -> None:
        body = self._objects.get(key)
        if body is None:
            return
        try:
            for report in unreachable(self._observe(key, body), why):
                await self._actions.write(key, body, report)
        except ApiError as error:  # it is tried again with the start itself
            _log.debug(POSTPONED, run=key.full_name, why=str(error))

    async def _read_again(self, key: Key, body: Body | None) -> None:
        try:
            self._objects.written(ResourceKind.RUN, await self._actions.client.read(key))
        except NotFoundError:
            if body is not None:
                self._objects.vanished(ResourceKind.RUN, body)
        except ApiError as error:
            raise RetryLaterError(str(error)) from None
