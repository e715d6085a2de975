"""A sender that dies at one of the places at which a process can die, in processes of their own.

Run by test_crash_points.py: `python -m services.notifications.tests.dying URL PORT ORDERS POINT[@NUMBER]...`. For each
point that many orders and as many messages of a campaign are due; a process is forked that is killed there, at that
time of the point, and then another one that does the rest. One line of JSON tells what came of it.

A point is before or after anything that the outside can tell apart: a statement of the sender, and a command of SMTP.
`data` and `taken` are at the server, which kills the sender when it is about to send a mail, and when the mail is
taken and nothing of that has been said. `all` takes each point of one message in turn, until nobody dies.
"""

import asyncio
import json
import os
import signal
import sys
from datetime import timedelta

import asyncpg
from amends_chassis.database import Database
from amends_testkit.dying import DIED, Fate, forked
from amends_testkit.waiting import eventually
from shop_notifications.domain import MailTemplate

from .world import add, know, notice, sender

AT_THE_SERVER = ("data", "taken")
ALL = "all"
LONG_AGO = "UPDATE notification SET due_at = now() WHERE state = 'sending'"
"""The time passes after which nobody is taken to be sending it any more."""
ROOM = {"limit": 100_000}


class DyingConnection(asyncpg.Connection):
    """A session whose changes, and the transactions around them, are points."""

    fate: Fate

    def _around(self, call, query: str):
        words = query.split()
        if not self.is_in_transaction() and words[0] not in ("UPDATE", "BEGIN;"):
            return call
        name = words[0].strip(";") if words[0] != "UPDATE" else f"UPDATE {words[1]}"

        async def around(*arguments, **named):
            self.fate.here(f"before {name}")
            answer = await call(*arguments, **named)
            self.fate.here(f"after {name}")
            return answer

        return around

    async def execute(self, query, *arguments, timeout=None):
        return await self._around(super().execute, query)(query, *arguments, timeout=timeout)

    async def fetch(self, query, *arguments, timeout=None, record_class=None):
        return await self._around(super().fetch, query)(query, *arguments, timeout=timeout)

    async def fetchrow(self, query, *arguments, timeout=None, record_class=None):
        return await self._around(super().fetchrow, query)(query, *arguments, timeout=timeout)

    async def fetchval(self, query, *arguments, timeout=None, column=0):
        return await self._around(super().fetchval, query)(query, *arguments, timeout=timeout, column=column)


class DyingDatabase(Database):
    async def _open(self, *_, **settings):
        return await asyncpg.connect(self._url(), **(settings | {"connection_class": DyingConnection}))


def dying_smtp(fate: Fate, connection) -> None:
    """Make the commands of a connection points."""
    for command in ("mail", "rcpt", "data"):

        def wrapped(call, name):
            async def around(*arguments):
                fate.here(f"before {name}")
                answer = await call(*arguments)
                fate.here(f"after {name}")
                return answer

            return around

        setattr(connection, command, wrapped(getattr(connection, command), command.upper()))


async def lay_out(url: str, orders: int, round_: str) -> None:
    """Begin anew: so many messages of each guarantee are due to the customer of this round."""
    database = Database(url)
    await database.connect()
    await database.pool.execute("DELETE FROM notification")
    await know(database, round_, email=f"{round_}@example.org")
    for template in (MailTemplate.ORDER_CONFIRMED, MailTemplate.CAMPAIGN):
        await add(database, *(notice(template, customer_id=round_) for _ in range(orders)))
    await database.close()


async def send(url: str, port: int, point: str, number: int) -> None:
    """Send until nothing is due any more."""
    fate = DyingConnection.fate = Fate(number, None if point == ALL else point)
    hostname = f"{point}.{number}.{os.getpid()}.test" if point in AT_THE_SERVER else "sender.test"
    database, watching = DyingDatabase(url, size=3), Database(url, size=1)
    await database.connect()
    await watching.connect()
    one = sender(database, port, hostname=hostname, timeout=30, **ROOM)
    connect = one._client.connect

    async def connected() -> None:
        await connect()
        dying_smtp(fate, one._client._client)

    setattr(one._client, "connect", connected)  # noqa: B010 # its commands are points
    tasks = [asyncio.create_task(one.run()), asyncio.create_task(one.tend())]

    async def done() -> bool:
        assert not any(task.done() for task in tasks)
        return not await watching.pool.fetchval("SELECT count(*) FROM notification WHERE due_at IS NOT NULL")

    await eventually(done, timeout=timedelta(minutes=2))
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await database.close()
    await watching.close()


async def execute(url: str, query: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(query)
    finally:
        await connection.close()


async def states_of(url: str) -> dict[str, int]:
    query = "SELECT template || ' ' || state AS what, count(*) AS times FROM notification GROUP BY 1"
    return {row["what"]: row["times"] for row in await execute(url, query)}


def take(url: str, port: int, orders: int, point: str, number: int) -> int:
    """Die at a point and let another process do the rest; return how the first one ended."""
    round_ = f"{point.replace(' ', '-')}-{number}"

    async def first() -> None:
        await lay_out(url, orders, round_)
        await send(url, port, point, number)

    async def rest() -> dict[str, int]:
        await execute(url, LONG_AGO)
        await send(url, port, ALL, 0)
        return await states_of(url)

    died, where = forked(first)
    code, found = forked(rest)
    if died not in (0, DIED, -signal.SIGKILL) or code:
        raise RuntimeError(f"at {point}: {where}; then: {found}")
    told = {"died": died, "where": where, "round": round_, "states": json.loads(found)}
    print(json.dumps(told), flush=True)
    return died


def main(url: str, port: int, orders: int, points: list[str]) -> None:
    """Take each point; `all` is each place of one message in turn, until nobody dies."""
    for asked in points:
        point, _, number = asked.partition("@")
        if point != ALL:
            take(url, port, orders, point, int(number or 1))
            continue
        place = 1
        while take(url, port, orders, ALL, place) == DIED:
            place += 1


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
