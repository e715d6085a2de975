"""One run in memory: hears signals, lets the engine decide, and carries out its commands.

There is a task for each call under way, but none for the run. A signal is folded at once, in the callback that brought
it, so that an answer, its record and the next call are one step of the event loop. Made by the fleet.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import grpc
from amends_chassis.pushback import NEVER
from amends_resilience import RetryPolicy
from amends_saga.engine import Phase, RunState, advance, awaited, bounded, stalled_since
from amends_saga.engine import events as ev
from amends_saga.engine.evolve import hear
from amends_saga.engine.state import answer_known, finished
from amends_saga.journal import encode
from amends_saga.plan import CallPlan, ExpressionError, Scope

from amends_orchestrator.calls.guards import CallDelayedError, CallPermit
from amends_orchestrator.calls.metadata import call_metadata
from amends_orchestrator.calls.outcome import classify, code_name, is_failure
from amends_orchestrator.calls.ports import Answer, RouteError
from amends_orchestrator.calls.router import ProtectedRoute
from amends_orchestrator.journal.records import JournalRefusal, RunChange
from amends_orchestrator.journal.tail import Tail
from amends_orchestrator.runner import summary
from amends_orchestrator.runner.host import RunHost
from amends_orchestrator.runner.ports import PinnedDefinition, RunInfo, RunKeeper

ROUTE_PAUSE = timedelta(seconds=2)
LEASE_PAUSE = timedelta(milliseconds=500)
NO_PAUSE = timedelta()
RESOURCE_EXHAUSTED: int = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
JUST_AFTER = timedelta(milliseconds=1)
"""A run counts as stalled only when it has waited longer than allowed, not exactly as long."""
LONGEST_SLEEP = timedelta(minutes=1)
"""The longest time that a released run sleeps more because it was held back for long."""

Watcher = Callable[["LiveRun"], None]


class LiveRun:
    """A run that this process owns. Not safe across threads; every method is quick and none awaits."""

    __slots__ = (
        "_ahead",
        "_chain",
        "_due",
        "_held",
        "_host",
        "_inbox",
        "_keeper",
        "_permits",
        "_pumping",
        "_rings",
        "_shown_stalled",
        "_timer",
        "_until",
        "definition",
        "gone",
        "info",
        "leavers",
        "state",
        "tail",
        "watchers",
    )

    def __init__(
        self,
        host: RunHost,
        keeper: RunKeeper,
        definition: PinnedDefinition,
        info: RunInfo,
        state: RunState,
        *,
        shown_stalled: bool = False,
    ) -> None:
        """Set up the run, without starting it. `shown_stalled` tells whether its row says that it is stalled."""
        self._host = host
        self._keeper = keeper
        self.definition = definition
        self.info = info
        self.state = state
        self.tail = Tail(info.id, state.fence, self)
        self.watchers: list[Watcher] = []
        """Called with every change, and when the run leaves."""
        self.leavers: list[Watcher] = []
        """Called once, when the run leaves."""
        self.gone = False
        """True once this process can no longer change the run."""
        self._inbox: deque[ev.Signal | None] = deque()
        self._pumping = False
        self._permits: dict[int, CallPermit] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._rings: datetime | None = None
        self._until: datetime | None = None
        self._due: datetime | None = None
        self._held = False
        """True if the last call was held back: nothing was sent, and nothing recorded."""
        self._shown_stalled = shown_stalled
        self._chain = definition.plan.chain
        self._ahead: ev.Prepared | None = None

    # ------------------------------------------------------------ signals

    def durable(self, seq: int) -> None:
        """Hear from the journal that the rows up to `seq` are committed."""
        if self._nobody_waits():
            # Only fold it and decide nothing: a chain of steps waits for nothing but the call under way.
            self.state = hear(self.definition.plan, self.state, ev.Durable(seq), self._host.now())
        else:
            self.tell(ev.Durable(seq))

    def _nobody_waits(self) -> bool:
        state = self.state
        if state.phase is not Phase.RUNNING or self.watchers or self._pumping or self.gone or not self._chain:
            return False
        for step in state.steps:  # noqa: SIM110 - a generator would cost more than all the rest
            if step.flight is not None:
                return True
        return False

    def refused(self, refusal: JournalRefusal) -> None:
        """Hear from the journal that it takes no more rows from this owner."""
        if not self.gone:
            self.leave()
            self._keeper.lost(self.info.id, refusal)

    def tell(self, signal: ev.Signal | None) -> None:
        """Hear a signal (None: time has passed) and carry out what follows from it."""
        if self.gone:
            return
        if not isinstance(signal, ev.ReleaseRequested | ev.Durable):
            self._due = None  # something has happened: a run that is being released must not miss it
        self._inbox.append(signal)
        if not self._pumping:
            self._pump()

    def _pump(self, commands: Sequence[ev.Command] = ()) -> None:
        self._pumping = True
        try:
            now = self._host.now()
            self._follow(commands, now)
            while self._inbox and not self.gone:
                self._until = None
                self.state, commands = advance(self.definition.plan, self.state, self._inbox.popleft(), now)
                self._follow(commands, now)
        except Exception as error:
            self._break(error)
            return
        finally:
            self._pumping = False
        self._rest()

    def _break(self, error: Exception) -> None:
        """Stop after a failure that no rule foresees; the run is claimed again later."""
        if not self.gone:
            self.leave()
            self._keeper.broken(self.info.id, error)

    def resume(self, commands: Sequence[ev.Command]) -> None:
        """Carry out the commands that the engine gave when the run was started."""
        if not self.gone:
            self._pump(commands)

    def _follow(self, commands: Sequence[ev.Command], now: datetime) -> None:
        for command in commands:
            match command:
                case ev.Record(entry):
                    self._record(entry, now)
                case ev.Send(step, call):
                    self._send(step, call)
                case ev.Prepare(step, call):
                    self._inbox.append(self._prepare(step, call))
                case ev.Wait(until):
                    self._until = until
                case ev.Admit(step):
                    self._admit(step)

    def leave(self) -> None:
        """Stop: record and call nothing more for this run. Calls under way end by themselves."""
        self.gone = True
        self.tail.let_go()
        self._inbox.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._rings = None
        for permit in self._permits.values():
            permit.give_back()
        self._permits.clear()
        for watcher in (*self.watchers, *self.leavers):
            watcher(self)

    def _rest(self) -> None:
        """After all signals: free unused places, release the run, or set the timer."""
        if self.gone:
            return
        if self._permits:
            self._give_back_permits()
        state = self.state
        if state.settled:
            self.leave()
            self._keeper.settled(self.info.id)
            return
        for watcher in tuple(self.watchers):
            watcher(self)
        if self._until is not None:
            self._wait(self._until)

    @property
    def next_attempt(self) -> datetime | None:
        """Return when the next delayed call is made; None when no call is delayed."""
        return min((step.retry_at for step in self.state.steps if step.retry_at is not None), default=None)

    def _give_back_permits(self) -> None:
        for index in list(self._permits):
            step = self.state.steps[index]
            if not step.admitted and step.flight is None:
                self._permits.pop(index).give_back()

    # ------------------------------------------------------------ time

    def _wait(self, until: datetime) -> None:
        """Set the timer, or release a run that has nothing to do for long.

        A run that a breaker, bulkhead or budget holds back stays while there is room: each look from the database would
        cost a claim and a record, only to wait again. Once it counts as stalled it is released anyway, so that its row
        says so.
        """
        rings = self._rings
        busy = not self._idle()
        if busy and rings is not None and rings <= until:
            return
        now = self._host.now()
        if not busy:
            stalls = None if self._shown_stalled else self._stalls_at()
            long = until - now > self._keeper.passivate_after and not (self._held and self._keeper.roomy)
            if long or (stalls is not None and stalls <= now):
                self._due = self._next_look(until, stalls, now)
                self.tell(ev.ReleaseRequested())
                return
            if stalls is not None:
                until = min(until, stalls)
        if rings is not None and rings <= until:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._rings = until
        loop = asyncio.get_running_loop()
        seconds = max((until - now).total_seconds(), 0.0)
        self._timer = loop.call_later(seconds, self._ring, context=contextvars.Context())

    def _ring(self) -> None:
        self._timer = self._rings = None
        self.tell(None)

    def _idle(self) -> bool:
        state = self.state
        if state.durable < state.seq:
            return False
        for step in state.steps:
            if step.flight is not None or step.admitting or step.preparing is not None:
                return False
        return True

    def _waits_since(self) -> datetime | None:
        """Return since when the longest waiting step waits; None when none waits."""
        return min((step.waiting_since for step in self.state.steps if step.waiting_since is not None), default=None)

    def _stalls_at(self) -> datetime | None:
        """Return when the run begins to count as stalled; None when it does not wait."""
        plan = self.definition.plan
        allowed, since = plan.stalled_after or plan.deadline, self._waits_since()
        return since + allowed + JUST_AFTER if allowed is not None and since is not None else None

    def _next_look(self, until: datetime, stalls: datetime | None, now: datetime) -> datetime:
        """Return when a released run is claimed again, at the latest at its deadline or when it stalls.

        A run that was held back for long sleeps longer than it has to: the runs in memory try often enough.
        """
        since = self._waits_since()
        if self._held and since is not None:
            until = max(until, now + min((now - since) / 4, LONGEST_SLEEP))
        marks = (mark for mark in (stalls, self.state.deadline) if mark is not None and mark > now)
        return min((until, *marks))

    # ------------------------------------------------------------ records

    def _record(self, entry: ev.Recorded, now: datetime) -> None:
        plan = self.definition.plan
        stalled = self._shown_stalled
        change, hurried = self._change(entry.event, now), awaited(plan, entry.event)
        told = self._host.announcer.recorded(plan, self.state, self.info, entry, change, stalled=stalled)
        self._host.writer.append(self.tail, entry.seq, encode(plan, entry), change, hurried=hurried, event=told)

    def _change(self, event: ev.Event, now: datetime) -> RunChange | None:
        plan = self.definition.plan
        if isinstance(event, ev.AttemptFailed | ev.Answered):
            stalled = stalled_since(plan, self.state, now) is not None
            if stalled != self._shown_stalled:
                self._shown_stalled = stalled
                return summary.standing(plan, self.state, now, self._until, release=False)
            return None
        change = summary.change_for(plan, self.state, event, now, self._due)
        if change is not None:
            self._shown_stalled = change.stalled is not None
        return change

    # ------------------------------------------------------------ expressions

    def _scope(self, index: int) -> Scope:
        state = self.state
        name = self.definition.plan.steps[index].name
        assert state.started_at is not None
        return Scope(
            input=state.input,
            run_id=self.info.name,
            saga=self.info.saga,
            started_at=state.started_at,
            idempotency_key=self.info.key(name),
            responses={i: step.response for i, step in enumerate(state.steps) if step.response is not None},
        )

    def _prepare(self, index: int, call: ev.Operation) -> ev.Prepared:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.step == index and ahead.call is call:
            return ahead
        return self._evaluate(index, call)

    def _prepare_ahead(self, index: int) -> None:
        """Evaluate a chain's next step while a call is under way; the engine asks for it when its turn comes.

        The values that an expression sees never change once they are known, so it gives the same result now and later.
        """
        steps = self.state.steps
        if self.gone or self.state.phase is not Phase.RUNNING or index >= len(steps):
            return
        if steps[index].prepared or steps[index].done is not None:
            return
        for used in self.definition.plan.steps[index].uses:
            if not finished(steps[used]):
                return
        self._ahead = self._evaluate(index, ev.Operation.ACTION)

    def _evaluate(self, index: int, call: ev.Operation) -> ev.Prepared:
        step_plan, expressions, scope = self.definition.plan.steps[index], self.definition, self._scope(index)
        try:
            if call is ev.Operation.COMPENSATION:
                return ev.Prepared(index, call, compensation=expressions.compensation(index, scope))
            if step_plan.has_when and not expressions.when(index, scope):
                return ev.Prepared(index, call, runs=False)
            request = expressions.request(index, scope)
            undo = None
            if step_plan.compensation is not None and not step_plan.compensation.uses_self:
                undo = expressions.compensation(index, scope)
            return ev.Prepared(index, call, request=request, compensation=undo)
        except ExpressionError as error:
            return ev.Prepared(index, call, error=str(error))

    # ------------------------------------------------------------ calls

    def _method(self, index: int, call: ev.Operation) -> CallPlan:
        step_plan = self.definition.plan.steps[index]
        if call in (ev.Operation.COMPENSATION, ev.Operation.VOID_COMPENSATION) and step_plan.compensation is not None:
            return step_plan.compensation
        return step_plan.action

    def _again(self, index: int, call: ev.Operation) -> bool:
        step = self.state.steps[index]
        return (step.attempts if call is ev.Operation.ACTION else step.retries) > 0

    def _hold(self, index: int, call: ev.Operation, pause: timedelta, message: str) -> None:
        self._held = True
        self._inbox.append(ev.Refused(index, call, self._host.now() + pause, message))

    def _find_route(self, index: int, call: ev.Operation) -> ProtectedRoute | None:
        method = self._method(index, call)
        if not self._host.leased():
            self._hold(index, call, LEASE_PAUSE, "this orchestrator has lost touch with its database")
            return None
        try:
            return self._host.route(self.info.namespace, method.service, method.method)
        except RouteError as error:
            self._hold(index, call, ROUTE_PAUSE, str(error))
            return None

    def _admit(self, index: int) -> None:
        protected = self._find_route(index, ev.Operation.ACTION)
        if protected is None:
            return
        again = self._again(index, ev.Operation.ACTION)
        try:
            permit = protected.guard.try_permit(retry=again)
        except CallDelayedError as delayed:
            self._hold(index, ev.Operation.ACTION, delayed.retry_in, delayed.message)
            return
        if permit is None:
            self._spawn(self._admit_later, index, protected, again)
            return
        self._permits[index] = permit
        self._inbox.append(ev.Admitted(index))

    async def _admit_later(self, index: int, protected: ProtectedRoute, again: bool) -> None:
        try:
            permit = await protected.guard.wait_permit(retry=again)
        except CallDelayedError as delayed:
            self._held = True
            self.tell(ev.Refused(index, ev.Operation.ACTION, self._host.now() + delayed.retry_in, delayed.message))
            return
        if self.gone or not self.state.steps[index].admitting:
            permit.give_back()
            return
        self._permits[index] = permit
        self.tell(ev.Admitted(index))

    def _send(self, index: int, call: ev.Operation) -> None:
        permit = self._permits.pop(index, None) if call is ev.Operation.ACTION else None
        protected = self._find_route(index, call)
        if protected is None:
            if permit is not None:
                permit.give_back()
            return
        if permit is None:
            try:
                permit = protected.guard.try_permit(retry=self._again(index, call))
            except CallDelayedError as delayed:
                self._hold(index, call, delayed.retry_in, delayed.message)
                return
        self._spawn(self._call, index, call, protected, permit)
        if self._chain and call is ev.Operation.ACTION and self._keeper.at_leisure:
            self._host.when_sent(self._prepare_ahead, index + 1)

    def _spawn(self, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        self._host.spawn(self._unless_it_breaks(work, arguments))

    async def _unless_it_breaks(self, work: Callable[..., Awaitable[None]], arguments: tuple[Any, ...]) -> None:
        try:
            await work(*arguments)
        except Exception as error:
            self._break(error)

    async def _call(self, index: int, call: ev.Operation, protected: ProtectedRoute, permit: CallPermit | None) -> None:
        if permit is None:
            try:
                permit = await protected.guard.wait_permit(retry=self._again(index, call))
            except CallDelayedError as delayed:
                self._held = True
                self.tell(ev.Refused(index, call, self._host.now() + delayed.retry_in, delayed.message))
                return
        if self.gone or self.state.steps[index].flight is not call:
            permit.give_back()  # before the call was made, the run was lost or decided something else
            return
        self._held = False
        failed = True
        try:
            answer = await self._attempt(index, call, protected)
            failed = is_failure(answer)
        finally:
            permit.conclude(failed=failed)
        self.tell(ev.Replied(index, call, self._reply(index, call, answer, protected.route.policy)))

    async def _attempt(self, index: int, call: ev.Operation, protected: ProtectedRoute) -> Answer:
        step = self.state.steps[index]
        name = self.definition.plan.steps[index].name
        request = {ev.Operation.ACTION: step.request, ev.Operation.COMPENSATION: step.compensation}.get(call) or b""
        if len(request) > protected.route.max_request_bytes:
            message = f"the request has {len(request)} bytes, at most {protected.route.max_request_bytes} can be sent"
            return Answer(RESOURCE_EXHAUSTED, message=message, reason="REQUEST_TOO_LARGE", sent=False)
        metadata = call_metadata(
            self.info.name,
            name,
            call,
            self.info.key(name),
            self.state.fence,
            action_ok=answer_known(step),
        )
        if self._again(index, call):
            protected.retries.inc()
        return await self._host.send(protected, request, metadata, self.info.traceparent)

    def _reply(self, index: int, call: ev.Operation, answer: Answer, policy: RetryPolicy) -> ev.Reply:
        """Return the classified answer, with the time at which the policy tries again."""
        verdict = classify(self._method(index, call), call, answer)
        if verdict.outcome is not ev.Outcome.UNKNOWN:
            return ev.Reply(verdict.outcome, verdict.response, answer.code, verdict.reason, answer.message)
        step, plan, now = self.state.steps[index], self.definition.plan, self._host.now()
        attempt = (step.attempts if call is ev.Operation.ACTION else step.retries) + 1
        limited = bounded(plan, index, call) and self.state.phase is Phase.RUNNING
        retry_at = give_up_at = None
        if not limited or (policy.again(code_name(answer.code), attempt) and answer.pause != NEVER):
            # A pause that the participant asks for is added. If it asks not to be called again, but the call cannot be
            # given up, only the policy's own pause applies.
            retry_at = now + policy.backoff.delay(attempt, random.random) + max(answer.pause or NO_PAUSE, NO_PAUSE)
        if limited:
            give_up_at = step.give_up_at or now + policy.worst_case()
        message = answer.message or code_name(answer.code)
        return ev.Reply(ev.Outcome.UNKNOWN, b"", answer.code, verdict.reason, message, retry_at, give_up_at)
