"""amends.events.v1.ExportService: what a service keeps, told as the events that led to it.

Made by `service.Runtime` for a service that names its tables (`runtime.exports`). Readers that need more than the log
has, such as projections, call it: for everything in pages, or for one key.
"""

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from amends.events.v1 import export_pb2 as pb
from amends.events.v1 import export_pb2_grpc
from amends_chassis.database import Database
from amends_chassis.errors import InvalidArgument
from amends_chassis.types import Context

NAME = "amends.events.v1.ExportService"
DEFAULT_PAGE, MAX_PAGE = 500, 1_000
MAX_BYTES = 1024 * 1024
"""A page ends here, well before an answer is larger than a client takes."""

Exported = tuple[Message, int, datetime]
"""An event, the version that it gave the row, and when it happened."""


@dataclass(frozen=True, slots=True)
class ExportedTable:
    """A table whose rows can be told again."""

    select: str
    """Reads rows of the table; without WHERE, and without parameters."""
    key: str
    """The column of the events' key, by which the table has a unique index; as `select` calls it."""
    events: Callable[[Any], Iterable[Exported]]
    """Returns the events that led to a row, in the order of their versions; the row has its key under `key`'s name."""

    @property
    def _column(self) -> str:
        return self.key.rpartition(".")[2]

    def key_of(self, row: Any) -> str:
        """Return the key of a row."""
        return str(row[self._column])


class ExportService(export_pb2_grpc.ExportServiceServicer):
    """Exports the tables of one service, one after the other."""

    def __init__(self, database: Database, tables: Sequence[ExportedTable]) -> None:
        self._database = database
        self._tables = tables

    async def Export(self, request: pb.ExportRequest, context: Context) -> pb.ExportResponse:
        """Export one key, or a page of all."""
        if request.key:
            return pb.ExportResponse(events=await self._one(request.key))
        if not 0 <= request.page_size <= MAX_PAGE:
            raise InvalidArgument("PAGE_SIZE_INVALID", f"page_size must be 0 (for {DEFAULT_PAGE}) to {MAX_PAGE}")
        return await self._page(*self._start(request.page_token), request.page_size or DEFAULT_PAGE)

    async def _one(self, key: str) -> list[pb.ExportedEvent]:
        events: list[pb.ExportedEvent] = []
        async with self._database.transaction() as transaction:
            for table in self._tables:
                for row in await transaction.fetch(f"{table.select} WHERE {table.key} = $1", key):
                    events += _told(table, row)
        return events

    async def _page(self, number: int, after: str, size: int) -> pb.ExportResponse:
        table = self._tables[number]
        query = f"{table.select} WHERE {table.key} > $1 ORDER BY {table.key} LIMIT $2"
        async with self._database.transaction() as transaction:
            rows = await transaction.fetch(query, after, size)
        answer = pb.ExportResponse()
        for row in rows:
            answer.events.extend(_told(table, row))
            if answer.ByteSize() >= MAX_BYTES:
                break
        last = len(rows) < size and (not rows or row is rows[-1])
        if not last:
            answer.next_page_token = _token(number, table.key_of(row))
        elif number + 1 < len(self._tables):
            answer.next_page_token = _token(number + 1, "")
        return answer

    def _start(self, token: str) -> tuple[int, str]:
        if not token:
            return 0, ""
        try:
            number, after = json.loads(base64.urlsafe_b64decode(token))
        except (binascii.Error, ValueError, TypeError):
            number, after = None, None
        if not isinstance(number, int) or not isinstance(after, str) or "\x00" in after:
            raise InvalidArgument("PAGE_TOKEN_INVALID", "page_token must come from the answer before")
        if not 0 <= number < len(self._tables):
            raise InvalidArgument("PAGE_TOKEN_INVALID", "page_token must come from the answer before")
        return number, after


def _told(table: ExportedTable, row: Any) -> list[pb.ExportedEvent]:
    key, events = table.key_of(row), []
    for message, version, happened_at in table.events(row):
        occurred_at = Timestamp()
        occurred_at.FromDatetime(happened_at)
        events.append(
            pb.ExportedEvent(
                type=str(message.DESCRIPTOR.full_name),
                key=key,
                version=version,
                occurred_at=occurred_at,
                payload=message.SerializeToString(),
            )
        )
    return events


def _token(number: int, after: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([number, after]).encode()).decode()
