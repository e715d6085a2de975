"""Lists everything that can happen next: by an owner, a replaced owner, the network, a participant, a person.

A record goes to disk as late as anything can notice: when its owner waits for it, or, for any prefix of the queue, when
the next owner reads the journal. A call without an answer stays on the wire, where it may arrive later or never: so one
move covers `unknown with effect`, `unknown without` and `late`. Called by `search`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from amends_saga.engine.events import Effect, Operation, Outcome, Reply, ResolutionAction, Resolved
from amends_saga.engine.state import Phase, RunState, after_pivot_intent, decided_by_person
from amends_saga.explore import invariants
from amends_saga.explore.bounds import Bounds
from amends_saga.explore.owners import NOW, Engine, ExpressionResults, Owners, Transition
from amends_saga.explore.participants import (
    DONE,
    NO_ROW,
    BarrierRules,
    BrokenInvariant,
    Delivery,
    Message,
    ParticipantModel,
    ParticipantState,
)
from amends_saga.explore.words import call_of, describe
from amends_saga.plan import MethodKind, Plan


class World(NamedTuple):
    """The whole state of an exploration. Numbers stand for owners and journals, see `Owners`."""

    disk: int
    owner: int
    """The current owner; -1: nobody."""
    zombies: tuple[int, ...]
    """Owners that were replaced and may still act."""
    wire: tuple[Message, ...]
    """Calls whose caller waits no more, and copies."""
    participants: tuple[ParticipantState, ...]
    fence: int = 1
    owners: int = 1
    crashes: int = 0
    resolutions: int = 0
    forgotten: bool = False


class Move(NamedTuple):
    """One thing that may happen, in words for people, and the invariants that it breaks."""

    text: str
    world: World
    violations: tuple[BrokenInvariant, ...] = ()


class Branch(NamedTuple):
    """One possible result of a call whose caller waits."""

    text: str
    transition: Transition
    wire: tuple[Message, ...]
    participants: tuple[ParticipantState, ...]
    violations: tuple[BrokenInvariant, ...] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """The promises of the world around the engine; a test may break each of them."""

    fence: bool = True
    """Records of an owner that was replaced are refused."""
    forgets: bool = False
    """A participant loses one row of its barrier: retention, a restored database, a replica without it."""
    barrier: BarrierRules = BarrierRules()  # noqa: RUF009 - frozen and without state


class Moves:
    """The moves of one exploration."""

    def __init__(
        self, plan: Plan, bounds: Bounds, engine: Engine, rules: Rules, expressions: ExpressionResults
    ) -> None:
        self._plan = plan
        self._bounds = bounds
        self._rules = rules
        self._resolve = engine.resolve
        self.owners = Owners(plan, engine, expressions)
        self._participants = ParticipantModel(
            plan,
            rules.barrier,
            rejections=bounds.rejections,
            compensation_rejections=bounds.compensation_rejections,
        )

    def first(self) -> World:
        """Return the world in which a run was just requested."""
        disk, owner = self.owners.begin()
        return World(disk, owner, (), (), (ParticipantState(),) * len(self._plan.steps))

    def name(self, index: int) -> str:
        """Return the name of a step; empty for -1."""
        return self._plan.steps[index].name if index >= 0 else ""

    def phase(self, world: World) -> str:
        """Return what the journal says about the run: an end, PARKED with its reason, or empty."""
        state = self.owners.disks[world.disk].state
        if state.parked is not None:
            return f"PARKED {state.parked.reason}"
        if not state.ended:
            return ""
        return state.phase.value + decided_by_person(self._plan, state)

    def next(self, world: World) -> Iterator[Move]:
        """Yield every possible move, each with the invariants that it breaks."""
        for move in self._all(world):
            bad = [*move.violations]
            disk = self.owners.disks[move.world.disk].state
            if move.world.participants is not world.participants or move.world.disk != world.disk:
                bad += invariants.broken(self._plan, disk, move.world.participants)
                before, after = world.participants, move.world.participants
                bad += invariants.after_skip(self._plan, disk, before, after)
                bad += invariants.after_amendment(self._plan, disk, before, after)
            if move.world.owner >= 0 and move.world.owner != world.owner:
                bad += invariants.while_amending(self._plan, self.owners.owners[move.world.owner].state)
            yield move._replace(violations=invariants.excuse(self._plan, disk, bad) if bad else ())

    def _all(self, world: World) -> Iterator[Move]:
        if world.owner >= 0:
            yield from self._owner(world)
        for index in range(len(world.zombies)):
            yield from self._zombie(world, index)
        yield from self._wire(world)
        yield from self._forget(world)
        yield from self._take_over(world)
        yield from self._person(world)

    # ------------------------------------------------------------ the current owner

    def _owner(self, world: World) -> Iterator[Move]:
        state = self.owners.owners[world.owner].state
        name = f"owner {world.fence}"
        for message in self.owners.live(world.owner):
            for text, transition, wire, after, bad in self._answers(world, world.owner, state, message):
                moved = self._stepped(world._replace(participants=after, wire=wire), transition)
                yield Move(f"{name}: {text}", moved, bad)
        count = self.owners.awaited(world.owner)
        if count:
            yield self._flush(world, name, count)
        if self._may_pass_deadline(world):
            transition = self.owners.pass_deadline(world.owner)
            yield Move(f"{name}: the deadline passes", self._stepped(world, transition))
        if self._bounds.releases and not (state.releasing or state.ended or state.parked):
            yield Move(f"{name}: lets go of the run", self._stepped(world, self.owners.release(world.owner)))
        if self._bounds.holds:
            yield from self._holds(world, name)
        if self._bounds.parks and self._stalls(world, state):
            yield Move(f"{name}: a person parks the stalled run", self._stepped(world, self.owners.park(world.owner)))

    def _holds(self, world: World, name: str) -> Iterator[Move]:
        for message in self.owners.live(world.owner):
            transition = self.owners.hold(world.owner, message)
            yield Move(f"{name}: {self._call(message)} is held back", self._stepped(world, transition))
        if self.owners.held(world.owner):
            yield Move(f"{name}: calls may pass again", self._stepped(world, self.owners.let_pass(world.owner)))

    def _flush(self, world: World, name: str, count: int) -> Move:
        disk = self.owners.write(world.disk, world.owner, count, world.fence)
        queue = self.owners.owners[world.owner].queue[:count]
        transition = self.owners.durable(world.owner, count)
        after = self._stepped(world._replace(disk=disk), transition)
        if self.owners.owners[transition.owner].state.settled:
            # Nobody waits for the calls that are still under way.
            wire = self._with(after.wire, self.owners.live(transition.owner), after.participants)
            after = after._replace(owner=-1, wire=wire)
        return Move(f"{name}: on disk: {', '.join(describe(self._plan, event) for event in queue)}", after)

    def _stalls(self, world: World, state: RunState) -> bool:
        if state.ended or state.parked or state.park_request or world.resolutions >= self._bounds.resolutions:
            return False
        return any(step.waiting_since for step in state.steps)

    def _may_pass_deadline(self, world: World) -> bool:
        owner = self.owners.owners[world.owner]
        return not owner.late and self._deadline_counts(owner.state)

    def _deadline_counts(self, state: RunState) -> bool:
        if not self._bounds.deadline or self._plan.deadline is None or state.parked:
            return False
        return state.phase is Phase.RUNNING and not after_pivot_intent(self._plan, state)

    # ------------------------------------------------------------ calls and answers

    def _answers(self, world: World, owner: int, state: RunState, message: Message) -> Iterator[Branch]:
        """Yield the possible results of a call whose caller waits."""
        name = self._call(message)
        for delivery in self._participants.deliver(world.participants, message):
            after = _put(world.participants, message.step, delivery.after)
            copy = (message,) if self._duplicates(message) else ()
            wire = self._with(world.wire, copy, after)
            transition = self.owners.reply(owner, message, delivery.reply)
            yield Branch(f"{name}: {delivery.text}", transition, wire, after, delivery.violations)
        if self._may_time_out(state, message):
            more = state.steps[message.step].attempts + 1 < self._bounds.attempts
            bounded = message.call is Operation.ACTION and not self._plan.steps[message.step].post
            reply = Reply(Outcome.UNKNOWN, retry_at=NOW if more or not bounded else None)
            transition = self.owners.reply(owner, message, reply)
            wire = self._with(world.wire, (message,) if self._bounds.late else (), world.participants)
            yield Branch(f"{name}: no answer", transition, wire, world.participants)
            if not self._bounds.late:
                yield from self._unheard(world, message, transition)

    def _unheard(self, world: World, message: Message, transition: Transition) -> Iterator[Branch]:
        """Yield the effects of a call whose answer is lost. With late calls, it is one that arrives at once."""
        for delivery in self._participants.deliver(world.participants, message):
            after = _put(world.participants, message.step, delivery.after)
            if after != world.participants:
                wire = self._with(world.wire, (), after)
                text = f"{self._call(message)}: {delivery.text}, answer lost"
                yield Branch(text, transition, wire, after, delivery.violations)

    def _may_time_out(self, state: RunState, message: Message) -> bool:
        step = state.steps[message.step]
        if not self._bounds.unanswered:
            return False
        if message.call is Operation.ACTION and not self._plan.steps[message.step].post:
            return True
        failed = step.attempts if message.call is Operation.ACTION else step.retries
        return failed + 1 < self._bounds.attempts

    def _duplicates(self, message: Message) -> bool:
        guarded = self._plan.steps[message.step].action.kind is MethodKind.GUARDED
        return self._bounds.duplicates if guarded else self._bounds.plain_duplicates

    def _call(self, message: Message) -> str:
        return call_of(self._plan, message.step, message.call)

    def _with(
        self, wire: tuple[Message, ...], more: tuple[Message, ...], after: tuple[ParticipantState, ...]
    ) -> tuple[Message, ...]:
        """Return the calls on the wire that can still change something."""
        return tuple(sorted(m for m in {*wire, *more} if not self._participants.inert(after, m)))

    def _stepped(self, world: World, transition: Transition) -> World:
        wire = self._with(world.wire, transition.abandoned, world.participants)
        return world._replace(owner=transition.owner, wire=wire)

    # ------------------------------------------------------------ zombies and the wire

    def _zombie(self, world: World, index: int) -> Iterator[Move]:
        zombie = world.zombies[index]
        state = self.owners.owners[zombie].state
        for message in self.owners.live(zombie):
            for text, transition, wire, after, bad in self._answers(world, zombie, state, message):
                left = self._with(wire, transition.abandoned, after)
                zombies = self._zombies(world.zombies, index, self._replaced(transition.owner))
                moved = world._replace(participants=after, wire=left, zombies=zombies)
                yield Move(f"replaced owner: {text}", moved, bad)
        if not self._rules.fence and self.owners.owners[zombie].queue:
            disk = self.owners.write(world.disk, zombie, 1, world.fence)
            transition = self.owners.durable(zombie, 1)
            zombies = self._zombies(world.zombies, index, transition.owner)
            yield Move("replaced owner: on disk, unfenced", world._replace(disk=disk, zombies=zombies))

    def _replaced(self, owner: int, written: int = 0) -> int:
        """Return the owner after its replacement; `written` of its records are on disk."""
        if self._rules.fence:
            return self.owners.silence(owner)
        return self.owners.durable(owner, written).owner if written else owner

    def _zombies(self, zombies: tuple[int, ...], index: int, now: int) -> tuple[int, ...]:
        rest = zombies[:index] + zombies[index + 1 :]
        writes = not self._rules.fence and self.owners.owners[now].queue
        keep = (now,) if writes or self.owners.live(now) else ()
        return tuple(sorted(rest + keep))

    def _wire(self, world: World) -> Iterator[Move]:
        for message in world.wire:
            for delivery in self._participants.deliver(world.participants, message):
                if delivery.after != world.participants[message.step] or delivery.violations:
                    yield self._late(world, message, delivery, "late")
            if self._bounds.windows:
                for delivery in self._participants.after_window(world.participants, message):
                    yield self._late(world, message, delivery, "after its window, late")

    def _late(self, world: World, message: Message, delivery: Delivery, how: str) -> Move:
        after = _put(world.participants, message.step, delivery.after)
        # A plain method is delivered twice at the most: it would never come to an end.
        again = self._plan.steps[message.step].action.kind is MethodKind.GUARDED and self._bounds.duplicates
        rest = tuple(m for m in world.wire if m != message or again)
        moved = world._replace(participants=after, wire=self._with(rest, (), after))
        return Move(f"{how} {self._call(message)}: {delivery.text}", moved, delivery.violations)

    def _forget(self, world: World) -> Iterator[Move]:
        if not self._rules.forgets or world.forgotten:
            return
        for index, here in enumerate(world.participants):
            guarded = self._plan.steps[index].action.kind is MethodKind.GUARDED
            if guarded and here.action == DONE and here.compensation == NO_ROW:
                lost = _put(world.participants, index, here._replace(action=NO_ROW, payload=None))
                name = self._plan.steps[index].name
                yield Move(f"the barrier of {name} forgets", world._replace(participants=lost, forgotten=True))

    # ------------------------------------------------------------ new owners

    def _take_over(self, world: World) -> Iterator[Move]:
        bounds = self._bounds
        if world.owners >= bounds.owners:
            return
        queue = self.owners.owners[world.owner].queue if world.owner >= 0 else ()
        seen = set()
        for count in range(len(queue), -1, -1):
            lost = len(queue) - count
            if lost and world.crashes >= bounds.crashes:
                continue
            disk = self.owners.write(world.disk, world.owner, count, world.fence) if count else world.disk
            state = self.owners.disks[disk].state
            if disk in seen or state.seq == 0 or state.ended or state.parked:
                continue
            seen.add(disk)
            yield self._taken(world, disk, lost)
            if self._deadline_counts(state):
                yield self._taken(world, disk, lost, late=True)

    def _taken(self, world: World, disk: int, lost: int, *, late: bool = False) -> Move:
        fence = world.fence + 1
        zombies = world.zombies
        if world.owner >= 0:
            old = self._replaced(world.owner, len(self.owners.owners[world.owner].queue) - lost)
            zombies = self._zombies((*zombies, old), len(zombies), old)
        transition = self.owners.take_over(disk, fence, late=late)
        after = World(
            disk,
            transition.owner,
            zombies,
            world.wire,
            world.participants,
            fence,
            world.owners + 1,
            world.crashes + bool(lost),
            world.resolutions,
            world.forgotten,
        )
        what = f", {lost} of the old owner's records are lost" if lost else ""
        when = " after the deadline" if late else ""
        return Move(f"owner {fence} takes over{when}{what}", after)

    # ------------------------------------------------------------ a person

    def _person(self, world: World) -> Iterator[Move]:
        state = self.owners.disks[world.disk].state
        if state.parked is None or world.owner >= 0 or world.resolutions >= self._bounds.resolutions:
            return
        for action in self._resolve.resolutions(self._plan, state):
            for effect in (None, Effect.HAPPENED, Effect.NONE):
                for amendment in self._plan.amendments if action is ResolutionAction.AMEND else (None,):
                    yield from self._resolution(world, state, action, effect, amendment)

    def _resolution(
        self, world: World, state: RunState, action: ResolutionAction, effect: Effect | None, amendment: int | None
    ) -> Iterator[Move]:
        parked = state.parked
        if parked is None:
            return
        check = self._resolve.check_resolution
        decision = Resolved(action, parked.step, parked.call, "a person", "", effect, None, None, amendment)
        if check(self._plan, state, decision):
            decision = decision._replace(result=b"r")
        if check(self._plan, state, decision) or (
            effect and not check(self._plan, state, decision._replace(effect=None))
        ):
            return
        fence = world.fence + 1
        disk, transition = self.owners.resolve(world.disk, decision, fence)
        what = f" {self.name(amendment)}" if amendment is not None else ""
        text = f"a person says {action.value}{what}" + (f", effect {effect.value}" if effect else "")
        moved = world._replace(disk=disk, owner=transition.owner, fence=fence, resolutions=world.resolutions + 1)
        yield Move(text, moved)

    def stuck(self, world: World) -> bool:
        """Return whether the current owner waits for something that never comes."""
        if world.owner < 0:
            return False
        calls = self.owners.live(world.owner)
        waits = self.owners.awaited(world.owner) or self.owners.held(world.owner)
        return not (calls or waits or self._may_pass_deadline(world))


def _put(all_: tuple[ParticipantState, ...], index: int, one: ParticipantState) -> tuple[ParticipantState, ...]:
    return (*all_[:index], one, *all_[index + 1 :])
