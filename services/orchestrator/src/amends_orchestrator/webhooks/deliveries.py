"""The table of what webhooks are sent: which delivery is next, and what became of it.

Rows are written with the events (`journal.telling`). A process takes the first open event of a key under a lease, tries
it outside of any transaction, and writes down what came of it, unless somebody else has taken it meanwhile. So events
of a key are tried in their order, whatever dies, and an event whose attempt was not written down is tried again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from amends_chassis.database import Executes
from amends_events import CloudEvent
from amends_events.envelope import attributes
from amends_events.structured import structured
from google.protobuf import json_format

from amends_orchestrator.announcer import PUBLISHES, SOURCE

if TYPE_CHECKING:
    from amends_chassis.database import Pool

TOPIC = str(PUBLISHES[0].DESCRIPTOR.file.package)
LONGEST_DETAIL = 500
COUNTED = 10_000
LOOKED_AT = 2_000
"""So many events that are due are looked at in one transaction."""
RETRY, SKIP = "retry", "skip"
"""What may be decided about a parked event."""

# What is due, locked: whoever releases what waits behind an event waits for this transaction, or was seen by it.
_DUE = """
SELECT seq FROM webhook_delivery
WHERE webhook = $1 AND state = 'due' AND due_at <= clock_timestamp()
  AND (leased_until IS NULL OR leased_until < clock_timestamp())
ORDER BY due_at, seq LIMIT $2
"""
_LOCK_DUE = f"{_DUE} FOR NO KEY UPDATE SKIP LOCKED"
# Of what is locked: takes the first open events of their keys; what waits behind another one is not looked at again
# before that has ended. It is a statement of its own, so that it sees what ended before the locks were there.
_TAKE = """
WITH known AS (
    SELECT seq, EXISTS (
        SELECT FROM webhook_delivery AS before
        WHERE before.webhook = one.webhook AND before.key = one.key AND before.seq < one.seq
          AND before.state IN ('due', 'parked')) AS waits
    FROM webhook_delivery AS one WHERE seq = ANY ($1::bigint[])
), put_off AS (
    UPDATE webhook_delivery AS one SET due_at = 'infinity' FROM known WHERE one.seq = known.seq AND known.waits
)
UPDATE webhook_delivery SET leased_until = clock_timestamp() + $2, attempts = attempts + 1
WHERE seq = ANY (ARRAY(SELECT seq FROM known WHERE NOT waits ORDER BY seq LIMIT $3))
RETURNING seq, webhook, event_id, key, version, type, dataschema, headers, payload, occurred_at, attempts, failures
"""
# The next event of the key, once the one before it has ended.
_RELEASED = """
UPDATE webhook_delivery SET due_at = now()
WHERE seq = (
    SELECT min(later.seq) FROM webhook_delivery AS later JOIN done ON later.webhook = done.webhook
        AND later.key = done.key AND later.seq > done.seq AND later.state = 'due'
)
"""
_DELIVERED = f"""
WITH done AS (
    UPDATE webhook_delivery SET state = 'delivered', ended_at = now(), leased_until = NULL, detail = $3
    WHERE seq = $1 AND attempts = $2 AND state = 'due' RETURNING seq, webhook, key
), released AS ({_RELEASED})
SELECT seq FROM done
"""  # noqa: S608 - a statement of ours
_FAILED = """
UPDATE webhook_delivery SET failures = failures + 1, due_at = now() + $4, leased_until = NULL, detail = $3
WHERE seq = $1 AND attempts = $2 AND state = 'due' RETURNING seq
"""
_PARKED = """
UPDATE webhook_delivery SET state = 'parked', parked_at = now(), failures = failures + 1, leased_until = NULL,
    detail = $3
WHERE seq = $1 AND attempts = $2 AND state = 'due' RETURNING seq
"""
_GIVE_BACK = """
UPDATE webhook_delivery AS given SET leased_until = NULL
FROM unnest($1::bigint[], $2::integer[]) AS mine (seq, attempts)
WHERE given.seq = mine.seq AND given.attempts = mine.attempts AND given.state = 'due'
"""
_COUNT = """
SELECT asked.webhook, asked.state, count(open.seq) AS events, min(open.occurred_at) AS oldest,
    coalesce(now() - min(open.occurred_at), interval '0') AS waits
FROM (SELECT webhook, state FROM unnest($1::text[]) AS webhook, unnest(ARRAY['due', 'parked']) AS state) AS asked
LEFT JOIN LATERAL (
    SELECT seq, occurred_at FROM webhook_delivery AS one
    WHERE one.webhook = asked.webhook AND one.state = asked.state AND one.state IN ('due', 'parked') LIMIT $2
) AS open ON true
GROUP BY asked.webhook, asked.state
"""
_NAMES = "SELECT DISTINCT webhook FROM webhook_delivery WHERE state IN ('due', 'parked') ORDER BY webhook"
_LIST = """
SELECT webhook, event_id, key, type, occurred_at, parked_at, attempts, detail, (
    SELECT count(*) FROM webhook_delivery AS later
    WHERE later.webhook = parked.webhook AND later.key = parked.key AND later.seq > parked.seq AND later.state = 'due'
) AS behind
FROM webhook_delivery AS parked WHERE state = 'parked' AND ($1 = '' OR webhook = $1) ORDER BY seq LIMIT $2
"""
_RETRY = """
UPDATE webhook_delivery SET state = 'due', parked_at = NULL, failures = 0, due_at = now(),
    decision = 'retry', decided_by = $3, decided_because = $4, decided_at = now()
WHERE webhook = $1 AND event_id = $2 AND state = 'parked' RETURNING seq
"""
_SKIP = f"""
WITH done AS (
    UPDATE webhook_delivery SET state = 'skipped', parked_at = NULL, ended_at = now(),
        decision = 'skip', decided_by = $3, decided_because = $4, decided_at = now()
    WHERE webhook = $1 AND event_id = $2 AND state = 'parked' RETURNING seq, webhook, key
), released AS ({_RELEASED})
SELECT seq FROM done
"""  # noqa: S608 - a statement of ours
_REPLAY = """
UPDATE webhook_delivery SET state = 'due', ended_at = NULL, failures = 0, due_at = now(), decision = NULL,
    decided_by = NULL, decided_because = NULL, decided_at = NULL
WHERE webhook = $1 AND state IN ('delivered', 'skipped') AND occurred_at >= $2 AND ($3 = '' OR key = $3)
"""
_STATE = "SELECT state FROM webhook_delivery WHERE webhook = $1 AND event_id = $2 ORDER BY seq LIMIT 1"
# Nothing waits behind nothing: it would wait for ever, if somebody removed rows by hand.
_WAKE = """
UPDATE webhook_delivery AS one SET due_at = now()
WHERE state = 'due' AND due_at = 'infinity' AND NOT EXISTS (
    SELECT FROM webhook_delivery AS before
    WHERE before.webhook = one.webhook AND before.key = one.key AND before.seq < one.seq
      AND before.state IN ('due', 'parked'))
"""
_EXPIRE = """
DELETE FROM webhook_delivery WHERE seq = ANY (ARRAY(
    SELECT seq FROM webhook_delivery WHERE ended_at < now() - $1::interval LIMIT $2
))
"""
# What nobody will send, because the settings do not name its webhook any more.
_EXPIRE_FORMER = """
DELETE FROM webhook_delivery WHERE seq = ANY (ARRAY(
    SELECT seq FROM webhook_delivery
    WHERE state IN ('due', 'parked') AND webhook <> ALL ($3::text[]) AND occurred_at < now() - $1::interval LIMIT $2
))
"""


@dataclass(frozen=True, slots=True)
class WebhookDelivery:
    """An event that this process has taken to send."""

    seq: int
    webhook: str
    event: CloudEvent
    dataschema: str
    attempts: int
    """The number of this attempt: what tells it from those after it."""
    failures: int
    """How many attempts have failed since the last decision."""

    def body(self) -> bytes:
        """Return the event as CloudEvents 1.0 has it in JSON (amends.events.v1.CloudEvent), the same each time."""
        shown = structured(attributes(self.event, self.dataschema), self.event.payload)
        return json_format.MessageToJson(shown, indent=None, sort_keys=True).encode()


@dataclass(frozen=True, slots=True)
class OpenDeliveries:
    """How many events of a webhook are in a state, and how long the oldest has waited."""

    webhook: str
    state: str
    events: int
    oldest: datetime | None
    waits: timedelta


async def take(database: Pool, webhook: str, limit: int, lease: timedelta) -> list[WebhookDelivery]:
    """Take up to `limit` events that are due, each the first open one of its key, in the order of their turn."""
    rows: Sequence[Any] = ()
    while not rows and await database.fetchval(_DUE, webhook, 1) is not None:
        async with database.acquire() as connection, connection.transaction():
            due = [row["seq"] for row in await connection.fetch(_LOCK_DUE, webhook, LOOKED_AT)]
            rows = await connection.fetch(_TAKE, due, lease, limit)
        if len(due) < LOOKED_AT:
            break
    return sorted((_delivery(row) for row in rows), key=lambda delivery: delivery.seq)


def _delivery(row: Any) -> WebhookDelivery:
    headers: Mapping[str, str] = json.loads(row["headers"])
    event = CloudEvent(
        event_id=row["event_id"],
        source=SOURCE,
        type=row["type"],
        topic=TOPIC,
        key=row["key"],
        version=row["version"],
        occurred_at=row["occurred_at"],
        headers=headers,
        payload=row["payload"],
    )
    return WebhookDelivery(row["seq"], row["webhook"], event, row["dataschema"], row["attempts"], row["failures"])


async def delivered(database: Executes, delivery: WebhookDelivery, detail: str) -> bool:
    """Note that the destination has taken an event; return False when the attempt is not ours any more."""
    return await database.fetchval(_DELIVERED, *_written(delivery, detail)) is not None


async def failed(database: Executes, delivery: WebhookDelivery, detail: str, pause: timedelta) -> bool:
    """Note that an attempt has failed, and when the next is due; return False when it is not ours any more."""
    return await database.fetchval(_FAILED, *_written(delivery, detail), pause) is not None


async def parked(database: Executes, delivery: WebhookDelivery, detail: str) -> bool:
    """Note that an event is not tried any more before somebody decides; return False when it is not ours any more."""
    return await database.fetchval(_PARKED, *_written(delivery, detail)) is not None


def _written(delivery: WebhookDelivery, detail: str) -> tuple[Any, ...]:
    return delivery.seq, delivery.attempts, detail[:LONGEST_DETAIL]


async def give_back(database: Executes, deliveries: list[WebhookDelivery]) -> None:
    """Let others take what was taken here and not finished, without waiting for the lease."""
    await database.execute(_GIVE_BACK, [one.seq for one in deliveries], [one.attempts for one in deliveries])


async def count(database: Executes, webhooks: Iterable[str]) -> list[OpenDeliveries]:
    """Return what is due and what is parked of each of some webhooks, counted up to COUNTED."""
    return [OpenDeliveries(**row) for row in await database.fetch(_COUNT, [*webhooks], COUNTED)]


async def names(database: Executes) -> list[str]:
    """Return the webhooks of which anything is open, also those that are not in the settings any more."""
    return [row["webhook"] for row in await database.fetch(_NAMES)]


async def list_parked(database: Executes, webhook: str, limit: int) -> list[Any]:
    """Return the parked events of a webhook (of all, if it is empty), oldest first."""
    return [*await database.fetch(_LIST, webhook, limit)]


async def decide(database: Executes, webhook: str, event_id: UUID, decision: str, actor: str, because: str) -> bool:
    """Have a parked event tried again (RETRY) or left out (SKIP); return False when it is not parked."""
    statement = _SKIP if decision == SKIP else _RETRY
    return await database.fetchval(statement, webhook, event_id, actor, because) is not None


async def state_of(database: Executes, webhook: str, event_id: UUID) -> str | None:
    """Return the state of an event for a webhook; None when there is no such event."""
    found: str | None = await database.fetchval(_STATE, webhook, event_id)
    return found


async def replay(database: Executes, webhook: str, since: datetime, key: str) -> int:
    """Have what ended tried again, as far back as `since` (of `key` alone, unless it is empty); return how many."""
    tag: str = await database.execute(_REPLAY, webhook, since, key)
    return int(tag.rpartition(" ")[2])


async def wake(database: Executes) -> None:
    """Have events tried that wait behind others which are not there any more."""
    await database.execute(_WAKE)


async def expire(database: Executes, retention: timedelta, webhooks: Iterable[str], limit: int = 1_000) -> int:
    """Forget what ended longer ago than `retention`, and what is as old and for none of `webhooks`; return how many.

    At most `limit` of each are forgotten; call it again until it returns less.
    """
    ended: str = await database.execute(_EXPIRE, retention, limit)
    former: str = await database.execute(_EXPIRE_FORMER, retention, limit, [*webhooks])
    return max(int(tag.rpartition(" ")[2]) for tag in (ended, former))
