"""The five promises, as decisions over the rows of one key. Knows Postgres, and nothing of gRPC servers.

Called by the interceptor, for every call of a guarded method.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from amends_barrier.protocol import BarrierError, GuardedCall, Operation, Reason, Voided
from amends_barrier.transaction import BarrierRow, Pool, PreparedScripts, Transaction

HandlerWork = Callable[[], Awaitable[bytes]]
"""Runs the handler inside the transaction and returns its serialised response; raises to have it rolled back."""

TRIES = 5
"""How often a decision is taken again because the rows changed while it was."""


@dataclass(frozen=True, slots=True)
class GuardAnswer:
    """A response, and for a void what became of it."""

    response: bytes
    voided: Voided | None = None


class Guard:
    """Takes the decisions on one database."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._prepared = PreparedScripts()
        self._scripts = self._prepared.scripts

    def transaction(self) -> Transaction:
        """Return a transaction to enter."""
        return Transaction(self._pool, self._prepared)

    async def answer(self, call: GuardedCall, digest: bytes, work: HandlerWork) -> GuardAnswer:
        """Answer a call that has a key, with or without its handler. Raises BarrierError, and the errors of `work`."""
        match call.operation:
            case Operation.ACTION:
                return await self._action(call.key, digest, work)
            case Operation.COMPENSATION:
                return await self._compensation(call, digest, work)
            case Operation.VOID:
                return await self._void(call.key, call.void_of)

    async def unkeyed(self, work: HandlerWork) -> bytes:
        """Run the handler in a transaction of its own that leaves no row: a call that is no part of a saga."""
        async with self.transaction() as own:
            await own.begin()
            response = await work()
            await own.commit()
            return response

    async def _action(self, key: str, digest: bytes, work: HandlerWork) -> GuardAnswer:
        for _ in range(TRIES):
            async with self.transaction() as own:
                # Waits here for another call that holds the key's row.
                if await own.begin_with(self._scripts.begin_action(key, digest)):
                    return await self._once(own, key, Operation.ACTION, work)
                found = await own.read(key)
            action, compensation = found.get(Operation.ACTION), found.get(Operation.COMPENSATION)
            if action is None:
                continue  # expired meanwhile
            if action.is_void or (compensation is not None and not compensation.is_void):
                raise BarrierError(Reason.STEP_FENCED)
            return _again(action, digest)
        raise BarrierError(Reason.TRANSACTION_CONFLICT)

    async def _compensation(self, call: GuardedCall, digest: bytes, work: HandlerWork) -> GuardAnswer:
        key = call.key
        for _ in range(TRIES):
            async with self.transaction() as own:
                if await own.begin_with(self._scripts.begin_compensation(key, digest)):
                    return await self._once(own, key, Operation.COMPENSATION, work)
                found = await own.read(key)
                compensation, action = found.get(Operation.COMPENSATION), found.get(Operation.ACTION)
                if compensation is not None:
                    if compensation.is_void:
                        raise BarrierError(Reason.STEP_FENCED)
                    return _again(compensation, digest)
                if action is None or not action.is_void:
                    continue  # changed between the statements
                if call.action_known_ok:
                    raise BarrierError(Reason.ACTION_UNKNOWN)  # the void row of this attempt is rolled back
                if await own.record_null_compensation(key, digest):
                    await own.commit()
                    return GuardAnswer(b"")
        raise BarrierError(Reason.TRANSACTION_CONFLICT)

    async def _void(self, key: str, operation: Operation) -> GuardAnswer:
        for _ in range(TRIES):
            async with self.transaction() as own:
                if await own.insert(self._scripts.void(key, operation)):
                    return GuardAnswer(b"", Voided.VOIDED)
                row = (await own.read(key)).get(operation)
            if row is not None:
                return (
                    GuardAnswer(b"", Voided.VOIDED) if row.is_void else GuardAnswer(row.stored(), Voided.ALREADY_DONE)
                )
        raise BarrierError(Reason.TRANSACTION_CONFLICT)

    async def _once(self, own: Transaction, key: str, operation: Operation, work: HandlerWork) -> GuardAnswer:
        """Run the handler, whose row is ours, and commit its effect and its response together."""
        response = await work()
        await own.commit(self._scripts.finish(key, operation, response))
        return GuardAnswer(response)


def _again(row: BarrierRow, digest: bytes) -> GuardAnswer:
    if row.digest != digest:
        raise BarrierError(Reason.KEY_REUSED)
    return GuardAnswer(row.stored())
