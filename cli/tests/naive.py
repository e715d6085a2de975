"""A small ledger that keeps the five promises in memory, or breaks exactly one. Called by the tests of the probe.

The flaws are the ones that services have whose authors thought of duplicates and late calls only in part.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

import grpc
import grpc.aio
from amends_testkit.waiting import eventually
from google.protobuf import any_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.rpc import error_details_pb2, status_pb2

SERVICE = "naive.v1.Ledger"
RACING = timedelta(milliseconds=100)
"""How long a compensation looks whether its action is on the way."""


class Flaw(StrEnum):
    """What is wrong with a service."""

    NONE = "nothing"
    FORGETS_THAT_IT_ANSWERED = "knows only calls under way"
    ANSWERS_ANEW = "answers a repetition with other bytes"
    CHECKS_THEN_ACTS = "looks for a predecessor, and then acts"
    KEY_IS_ALL = "never compares requests"
    REFUNDS_NOTHING = "a compensation pays back what was never paid"
    BELIEVES_THE_CALLER = "accepts the compensation of an action that it forgot"
    LEAVES_NO_MARK = "a compensation without its action leaves no void record"
    FORGETS_WHAT_IT_UNDID = "drops the action's record with the action"
    COMMITS_LATE = "an action under way commits although it was undone meanwhile"
    VOIDS_NOTHING = "says voided and keeps no record of it"
    VOIDS_WHAT_RAN = "says voided of an action that ran"
    VOIDS_ACTIONS_ONLY = "says voided of a compensation and keeps no record of it"
    HIDES_ERRORS = "its errors bypass the interceptor that sets the trailer"
    DECLINES = "declines every action"
    SEES_NOTHING = "its read shows no effects"
    SEES_A_CLOCK = "its read is never twice the same"


LOSES_RACES = {Flaw.REFUNDS_NOTHING, Flaw.LEAVES_NO_MARK, Flaw.COMMITS_LATE}
"""Its action comes first in every race: it has one flaw, not two."""
WORK = defaultdict(
    lambda: 0.005,
    {
        Flaw.FORGETS_THAT_IT_ANSWERED: 0.06,
        Flaw.ANSWERS_ANEW: 0.06,
        Flaw.COMMITS_LATE: 0.06,
        Flaw.CHECKS_THEN_ACTS: 0.06,
    },
)
"""Seconds of an action; longer where all calls of a race must arrive meanwhile."""


class RefusedError(Exception):
    def __init__(self, code: grpc.StatusCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


FENCED = RefusedError(grpc.StatusCode.ABORTED, "STEP_FENCED")


def contract(*, numbers: bool = False) -> FileDescriptorSet:
    """Charge is undone by Refund, and Balance is a read; nothing says so in options of ours.

    With `numbers` the id is a whole number, and nothing in a request is a text.
    """
    file = FileDescriptorProto(name="naive/v1/ledger.proto", package="naive.v1", syntax="proto3")
    for name in ("Call", "Answer"):
        message = file.message_type.add(name=name)
        kind, label = FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.LABEL_OPTIONAL
        if numbers and name == "Call":
            kind = FieldDescriptorProto.TYPE_INT32
        message.field.add(name="id", number=1, type=kind, label=label)
    service = file.service.add(name="Ledger")
    for name in ("Charge", "Refund", "Balance"):
        service.method.add(name=name, input_type=".naive.v1.Call", output_type=".naive.v1.Answer")
    return FileDescriptorSet(file=[file])


@dataclass
class Row:
    request: bytes
    response: bytes
    void: bool = False


@dataclass
class Ledger:
    """The service. One key at a time, as the primary key of a real barrier makes it."""

    flaw: Flaw = Flaw.NONE
    by_order: bool = False
    """Whether Balance is of one order, or of all."""
    by_state: bool = False
    """Whether a refund leaves nothing of its order, however often that was charged."""
    details: bytes | None = None
    """What its refusals carry instead of a google.rpc.Status."""
    balances: defaultdict[bytes, int] = field(default_factory=lambda: defaultdict(int))
    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    under_way: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    locks: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    answers: int = 0

    async def call(self, method: str, request: bytes, given: Mapping[str, str]) -> tuple[bytes, str]:
        """The response, and what the trailer `amends-void` says. Raises RefusedError."""
        key, operation = given.get("amends-idempotency-key", ""), given.get("amends-operation", "")
        if method == "Balance":
            return self.read(request), ""
        if operation == "void":
            return self.void(key, given["amends-void-of"])
        if operation == "action":
            return await self.act(key, request), ""
        return await self.undo(key, request, given["amends-action-outcome"]), ""

    def read(self, request: bytes) -> bytes:
        if self.flaw is Flaw.SEES_NOTHING:
            return b""
        if self.flaw is Flaw.SEES_A_CLOCK:
            return self.answer()
        return _text(str(self.balances[request] if self.by_order else sum(self.balances.values())))

    def answer(self) -> bytes:
        self.answers += 1
        return _text(f"answer {self.answers}")

    async def act(self, key: str, request: bytes) -> bytes:
        again = (key, "action") in self.rows
        self.under_way[key] += 1
        try:
            if self.flaw is Flaw.CHECKS_THEN_ACTS and self.under_way[key] > 1:
                self.balances[request] += 1
            async with self.locks[key]:
                row = self.rows.get((key, "action"))
                if row is None:
                    return await self.act_now(key, request)
                return self.act_again(key, request, row, again)
        finally:
            self.under_way[key] -= 1

    async def act_now(self, key: str, request: bytes) -> bytes:
        if self.flaw is Flaw.DECLINES:
            raise RefusedError(grpc.StatusCode.FAILED_PRECONDITION, "CARD_DECLINED")
        await asyncio.sleep(WORK.get(self.flaw, 0.005))
        row = self.rows[key, "action"] = Row(request, self.answer())
        self.balances[request] += 1
        return row.response

    def act_again(self, key: str, request: bytes, row: Row, again: bool) -> bytes:
        undone = self.rows.get((key, "compensation"))
        if row.void or (undone is not None and not undone.void):
            raise FENCED
        if row.request != request and self.flaw is not Flaw.KEY_IS_ALL:
            raise RefusedError(grpc.StatusCode.FAILED_PRECONDITION, "KEY_REUSED")
        if again and self.flaw is Flaw.FORGETS_THAT_IT_ANSWERED:
            self.balances[request] += 1
        return self.answer() if again and self.flaw is Flaw.ANSWERS_ANEW else row.response

    async def undo(self, key: str, request: bytes, known: str) -> bytes:
        if self.flaw in LOSES_RACES:
            with suppress(TimeoutError):
                here = lambda: self.under_way[key] or (key, "action") in self.rows  # noqa: E731
                await eventually(here, timeout=RACING)
        if self.flaw is Flaw.COMMITS_LATE:
            return self.undo_now(key, request, known)
        async with self.locks[key]:
            return self.undo_now(key, request, known)

    def undo_now(self, key: str, request: bytes, known: str) -> bytes:
        action, own = self.rows.get((key, "action")), self.rows.get((key, "compensation"))
        if own is not None:
            if own.void:
                raise FENCED
            return own.response
        if action is not None and not action.void:
            self.balances[request] -= self.balances[request] if self.by_state else 1
            if self.flaw is Flaw.FORGETS_WHAT_IT_UNDID:
                del self.rows[key, "action"]
        else:
            if known == "ok" and self.flaw is not Flaw.BELIEVES_THE_CALLER:
                raise RefusedError(grpc.StatusCode.FAILED_PRECONDITION, "ACTION_UNKNOWN")
            if self.flaw is not Flaw.LEAVES_NO_MARK:
                self.rows[key, "action"] = Row(b"", b"", void=True)
            if self.flaw is Flaw.REFUNDS_NOTHING:
                self.balances[request] -= 1
        self.rows[key, "compensation"] = Row(request, b"")
        return b""

    def void(self, key: str, operation: str) -> tuple[bytes, str]:
        row = self.rows.get((key, operation))
        if row is not None and not row.void and self.flaw is not Flaw.VOIDS_WHAT_RAN:
            return row.response, "already-done"
        if self.flaw is not {"action": Flaw.VOIDS_NOTHING, "compensation": Flaw.VOIDS_ACTIONS_ONLY}[operation]:
            self.rows[key, operation] = Row(b"", b"", void=True)
        return b"", "voided"


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        async def serve(request: bytes, context: Any) -> bytes:
            given = dict(context.invocation_metadata() or ())
            marked = [("amends-barrier", "1")] if "amends-idempotency-key" in given else []
            try:
                response, void = await self._ledger.call(details.method.rpartition("/")[2], request, given)
            except RefusedError as refusal:
                if self._ledger.flaw is Flaw.HIDES_ERRORS:
                    marked = []
                info = any_pb2.Any()
                info.Pack(error_details_pb2.ErrorInfo(reason=refusal.reason, domain="amends.dev"))
                status = status_pb2.Status(code=refusal.code.value[0], message="refused", details=[info])
                detail = ("grpc-status-details-bin", self._ledger.details or status.SerializeToString())
                await context.abort(refusal.code, "refused", (*marked, detail))
            context.set_trailing_metadata((*marked, *([("amends-void", void)] if void else [])))
            return response

        return grpc.unary_unary_rpc_method_handler(serve)


@asynccontextmanager
async def serving(ledger: Ledger) -> AsyncIterator[str]:
    """Serves on 127.0.0.1, without reflection; the address."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers([_Handler(ledger)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def _text(text: str) -> bytes:
    """An Answer, serialised."""
    return b"\x0a" + bytes([len(text)]) + text.encode()
