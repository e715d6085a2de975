"""One seed, one world: processes, a database, a wire and participants, all of which fail; then all is well again.

`simulate` says what broke. Called by the tests, by `make soak`, and by `python -m amends_simulation`, which
replays a seed.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from amends_orchestrator.journal.requests import RequestKind
from amends_orchestrator.runner import request_server
from amends_resilience import Backoff, BreakerPolicy, BulkheadPolicy, RetryPolicy
from amends_saga.invariants import Invariant
from amends_saga.plan import Plan
from amends_testkit.engine.shapes import shape
from structlog.testing import capture_logs

from amends_simulation import verdict
from amends_simulation.database import SimulatedDatabase
from amends_simulation.participants import SimulatedDefinition, SimulatedParticipants
from amends_simulation.people import Person
from amends_simulation.process import AWAY, Process, SimulatedDefinitions, participants_of
from amends_simulation.virtual import DeadlockError, run_virtually, seconds
from amends_simulation.wire import SimulatedChannels, Weather

STORM = 30.0
"""Seconds for which things go wrong."""
PATIENCE = 600.0
"""Seconds after which, with everything well, every run must have ended."""
DEADLINE = timedelta(seconds=15)
Tweak = Callable[["Simulation"], None]


def _plans() -> list[Plan]:
    texts = ("g>g>P>g", "g|g>P", "g>g", "k>g>P", "g>i>O>k", "o>g|g>K", "g>P>r>g", "g>P>g|k>g/gk")
    plans = [shape(text, deadline=DEADLINE, service=f"test.v1.S{i}") for i, text in enumerate(texts)]
    plans.append(shape("r>g>g>P", uses={"b": "a", "c": "a"}, deadline=DEADLINE, service="test.v1.Reads"))
    own = {"uses_self": "ab", "when": "b", "uses": {"c": "b"}}
    plans.append(shape("g>g>g", deadline=DEADLINE, service="test.v1.Own", **own))  # type: ignore[arg-type]
    return plans


PLANS = _plans()
SERVICES = {plan.steps[0].action.service: plan for plan in PLANS}
PARTICIPANTS = participants_of(SERVICES)


@dataclass
class SeedResult:
    """The result of one seed: findings, trace and counts."""

    seed: int
    findings: list[str]
    trace: list[str]
    ends: dict[str, int] = field(default_factory=dict)
    runs: int = 0
    calls: int = 0
    decisions: int = 0
    takeovers: int = 0

    @property
    def digest(self) -> str:
        """Return a digest that two runs of the same seed have in common."""
        return sha256("\n".join(self.trace).encode()).hexdigest()


def simulate(seed: int, tweak: Tweak | None = None) -> SeedResult:
    """Live through one seed. `tweak` may break the world before it begins."""
    before = random.getstate()
    random.seed(seed)  # the runner draws its jitter there
    world = Simulation(seed)
    try:
        with capture_logs():
            run_virtually(world.live(tweak))
    except DeadlockError as deadlock:
        world.findings.append(Invariant.TERMINATION.broken(str(deadlock)))
    finally:
        random.setstate(before)
    return world.outcome()


class Simulation:
    """Everything that one seed simulates: processes, database, network, participants and people."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chance = random.Random(seed)  # noqa: S311 - a simulation
        self.findings: list[str] = []
        self.trace: list[str] = []
        self.database = SimulatedDatabase(self.chance)
        self.participants = SimulatedParticipants(self.chance, SERVICES)
        self.weather = Weather()
        self.processes: list[Process] = []
        self.acknowledged: dict[str, UUID] = {}
        self.wires: list[SimulatedChannels] = []
        self.sagas = {bytes([i]) * 32: SimulatedDefinition(plan) for i, plan in enumerate(PLANS)}
        self.definitions = SimulatedDefinitions(self.sagas)
        self.policy = RetryPolicy(
            timeout=timedelta(seconds=1),
            attempts=self.chance.choice((1, 3)),
            backoff=Backoff(timedelta(milliseconds=50), timedelta(seconds=1)),
            circuit_breaker=BreakerPolicy(minimum_calls=5, open_for=timedelta(seconds=2)),
            bulkhead=BulkheadPolicy(max_concurrent=self.chance.choice((2, 64))),
        )
        self._clients = 0
        self._tasks: list[asyncio.Task[Any]] = []

    def tell(self, text: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{seconds():8.3f}  {text}")

    # ------------------------------------------------------------ the story

    async def live(self, tweak: Tweak | None) -> None:
        """Storm, then calm, then judgement."""
        self._worsen()
        if tweak is not None:
            tweak(self)
        for _ in range(self.chance.choice((1, 2, 3))):
            await self._add_process()
        person = Person(self.chance, self.database, self.participants, self.plan_of, self.definitions, self.tell)
        self._begin(person.work(lambda: self.chance.choice(self.processes)))
        self._clients = self.chance.randint(2, 5)
        for number in range(self._clients):
            self._begin(self._client(f"key-{number}"))
        await self._storm()
        await self._calm()
        await self._await_ends()
        self.findings += verdict.judge(self.database, self.participants, self.plan_of, self.acknowledged)
        self.findings += self._overload()
        for process in self.processes:
            await process.kill()

    def _begin(self, work: Any) -> None:
        self._tasks.append(asyncio.create_task(work))

    def _worsen(self) -> None:
        """Choose how bad it is: most worlds have a few kinds of fault, often."""
        chance, faults = self.chance, self.database.faults

        def some(most: float) -> float:
            return chance.choice((0.0, 0.0, most / 4, most))

        faults.lost, faults.slow = some(0.2), some(0.1)
        self.weather.lost, self.weather.late = some(0.2), some(0.3)
        self.weather.twice, self.weather.unheard = some(0.4), some(0.2)
        self.participants.unkind = some(0.2)

    async def _add_process(self) -> None:
        name = f"p{len(self.wires) + 1}"
        world = self.database, self.definitions, PARTICIPANTS, self.policy, self._wire, self.tell
        process = Process(name, self.chance, *world)
        await process.start()
        self.processes.append(process)
        self.tell(f"{name} starts")

    def _wire(self, process: Process) -> SimulatedChannels:
        wire = SimulatedChannels(self.participants, self.weather, self.chance, process.gate, self.tell)
        self.wires.append(wire)
        return wire

    async def _client(self, key: str) -> None:
        """Start a run, again and again until that is acknowledged."""
        await asyncio.sleep(self.chance.uniform(0, STORM / 2))
        digest = self.chance.choice(list(self.sagas))
        definition = self.sagas[digest]
        data = b"order" + self.chance.choice((b"", b"", b"", b" without b", b" broken b", b" broken c"))
        while key not in self.acknowledged:
            process = self.chance.choice(self.processes)
            begin = process.starts.begin(definition, digest, namespace="test", key=key, data=data, traceparent="")
            try:
                async with asyncio.timeout(self.chance.uniform(0.5, 5)):
                    begun = await begin
            except AWAY:
                continue
            self.acknowledged[key] = begun.run_id
            self.tell(f"{key} is run {str(begun.run_id)[:8]} by {process.name}{'' if begun.created else ', again'}")
            if not begun.same:
                what = f"{key} was started with the same input and is said to have another"
                self.findings.append(Invariant.START.broken(what))

    def plan_of(self, run: UUID) -> Plan:
        """Return the plan of a run that the database knows."""
        return self.sagas[self.database.runs[run]["digest"]].plan

    # ------------------------------------------------------------ what goes wrong

    async def _storm(self) -> None:
        while seconds() < STORM:
            await asyncio.sleep(self.chance.expovariate(1 / 4.0))
            await self.chance.choice((self._pause, self._kill, self._leave, self._away, self._down, self._wish))()

    async def _pause(self) -> None:
        process, by = self.chance.choice(self.processes), self.chance.uniform(1, 9)
        self.tell(f"{process.name} stands still for {by:.1f} s")
        self._begin(process.pause(by))

    async def _kill(self) -> None:
        process = await self._replace()
        self.tell(f"{process.name} is killed")
        await process.kill()

    async def _leave(self) -> None:
        process = await self._replace()
        self.tell(f"{process.name} is asked to leave")
        self._begin(process.leave())

    async def _replace(self) -> Process:
        """Start another process, and return the one that makes way for it."""
        await self._add_process()
        return self.processes.pop(self.chance.randrange(len(self.processes) - 1))

    async def _away(self) -> None:
        self.tell("the database is away")
        self.database.faults.away = True
        await asyncio.sleep(self.chance.uniform(0.5, 5))
        self.database.faults.away = False
        self.tell("the database is back")

    async def _down(self) -> None:
        self.tell("the participants are down")
        self.participants.down = True
        await asyncio.sleep(self.chance.uniform(0.5, 10))
        self.participants.down = False
        self.tell("the participants are back")

    async def _wish(self) -> None:
        process = self.chance.choice(self.processes)
        if process.fleet.runs:
            run = self.chance.choice(list(process.fleet.runs.values()))
            kind = self.chance.choice((RequestKind.CANCEL, RequestKind.PARK))
            self.tell(f"somebody wants to {kind} {run.info.name[:8]}")
            self._begin(
                request_server.ask_run(process.fleet, run, kind, "somebody", "because", request_server.ANSWER_WITHIN)
            )

    async def _calm(self) -> None:
        """From now on nothing goes wrong any more."""
        self.tell("all is well from now on")
        faults = self.database.faults
        faults.lost = faults.slow = 0.0
        faults.away = self.participants.down = False
        self.participants.unkind = 0.0
        self.weather.calm()

    async def _await_ends(self) -> None:
        while seconds() < STORM + PATIENCE:
            await asyncio.sleep(5)
            ended = all(row["state"] >= 4 for row in self.database.runs.values())
            if ended and len(self.acknowledged) == self._clients:
                break
        await asyncio.sleep(20)  # what is still under way arrives

    # ------------------------------------------------------------ the end

    def _overload(self) -> list[str]:
        allowed = self.policy.bulkhead.max_concurrent
        most = max(wire.most_in_flight for wire in self.wires)
        return [Invariant.BULKHEAD.broken(f"{most} calls in flight, {allowed} are allowed")] if most > allowed else []

    def outcome(self) -> SeedResult:
        """Return the result of the seed."""
        rows = self.database.runs.values()
        ends: dict[str, int] = {}
        for row in rows:
            ends[str(row["state"])] = ends.get(str(row["state"]), 0) + 1
        takeovers = sum(len({fence for _, fence, _ in journal}) - 1 for journal in self.database.journal.values())
        calls = sum(" of " in line for line in self.trace)
        decisions = sum("a person says" in line for line in self.trace)
        return SeedResult(self.seed, self.findings, self.trace, ends, len(rows), calls, decisions, takeovers)
