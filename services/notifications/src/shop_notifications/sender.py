"""Sends what is due: one message after the other, over one connection. Started by `__main__`.

For each message three things are committed or done, in this order: the state `sending`, the transmission, what came
of it. A process that dies between them leaves a message in `sending`; after twice the time of a transmission it
counts as unknown, and its template says whether it is sent again. Nothing is claimed without a connection, so that
while the mail server is away messages are due and nothing else.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.errors import MessageError
from functools import partial
from typing import Final, TypeVar

import structlog
from amends_barrier import database_away
from amends_chassis.database import Database
from amends_chassis.errors import Unavailable
from amends_chassis.service import Runtime
from amends_resilience import Backoff

from shop_notifications import store
from shop_notifications.domain import (
    Contact,
    Notification,
    NotificationState,
    SendingRules,
    SendNever,
    SendNow,
    ServerReply,
    Transmission,
)
from shop_notifications.letters import Letters
from shop_notifications.metrics import MessageMetrics
from shop_notifications.settings import Settings
from shop_notifications.smtp import SmtpClient, SmtpUnreachableError, smtp_server

T = TypeVar("T")

LOOK_EVERY: Final = timedelta(milliseconds=250)
KEEP_IDLE: Final = timedelta(seconds=10)
"""So long a connection is kept that nothing goes over."""
TEND_EVERY: Final = timedelta(seconds=5)
EXPIRE_EVERY: Final = timedelta(minutes=10)
FINISH_WITHIN: Final = timedelta(seconds=4)
"""So long a transmission under way may go on when the process is to end."""
_RECONNECT: Final = Backoff(timedelta(milliseconds=500), timedelta(seconds=30))
_AGAIN: Final = Backoff(timedelta(milliseconds=100), timedelta(seconds=2))

NO_SERVER: Final = "mail.no_server"

_log = structlog.get_logger(__name__)


class MailSender:
    """Sends due messages, until it is told that the process drains."""

    def __init__(
        self,
        database: Database,
        client: SmtpClient,
        letters: Letters,
        rules: SendingRules,
        metrics: MessageMetrics,
        draining: asyncio.Event,
    ) -> None:
        self._database = database
        self._client = client
        self._letters = letters
        self._rules = rules
        self._metrics = metrics
        self._draining = draining
        self._failures = 0
        self._idle_since: float | None = None

    async def run(self) -> None:
        """Send what is due, for as long as the process works."""
        try:
            while not self._draining.is_set():
                pause = await self.turn()
                with suppress(TimeoutError):
                    if pause:
                        await asyncio.wait_for(self._draining.wait(), pause.total_seconds())
        finally:
            await self._client.close()

    async def turn(self) -> timedelta:
        """See to one message, and return how long there is nothing to do. Waits for a database that is away."""
        if not self._client.connected:
            if not await self._surely(lambda: store.is_due(self._database)):
                return LOOK_EVERY
            if not await self._connect():
                return _RECONNECT.ceiling(self._failures)
        claimed = await self._surely(lambda: store.claim(self._database, self._rules))
        if claimed is None:
            await self._rest()
            return LOOK_EVERY
        self._idle_since = None
        decision = claimed.decision
        if isinstance(decision, SendNow):
            await _to_its_end(self._send(claimed.notification, decision.contact))
        elif isinstance(decision, SendNever):
            self._metrics.came_into(claimed.notification.template, NotificationState.SUPPRESSED)
        return timedelta(0)

    async def _connect(self) -> bool:
        try:
            await self._client.connect()
        except SmtpUnreachableError as error:
            self._failures += 1
            self._metrics.connection(made=False)
            _log.warning("mail.server_away", error=str(error), failures=self._failures)
            return False
        self._failures = 0
        self._metrics.connection(made=True)
        return True

    async def _rest(self) -> None:
        """Give up the connection when it has not been used for a while: the server would, and say nothing."""
        now = asyncio.get_running_loop().time()
        if self._idle_since is None:
            self._idle_since = now
        elif now - self._idle_since > KEEP_IDLE.total_seconds():
            await self._client.close()

    async def _send(self, notification: Notification, contact: Contact) -> None:
        """Transmit a message that is in state `sending`, and write down what came of it."""
        self._metrics.came_into(notification.template, NotificationState.SENDING)
        transmission = await self._transmit(notification, contact)
        pause = self._rules.again.delay(notification.attempts + 1, random.random)
        state = await self._surely(lambda: store.settle(self._database, notification, transmission, pause))
        if state is None:
            _log.warning("mail.taken_over", notification=str(notification.notification_id))
            return
        self._metrics.came_into(notification.template, state)
        told = {"notification": str(notification.notification_id), "state": state, "answer": transmission.answer}
        (_log.info if state is NotificationState.SENT else _log.warning)("mail.settled", **told)

    async def _transmit(self, notification: Notification, contact: Contact) -> Transmission:
        try:
            letter = self._letters.compose(notification, contact, datetime.now(UTC))
        except (MessageError, ValueError, LookupError) as error:  # it would be the same each time
            return Transmission(ServerReply.REFUSED, f"it cannot be written: {error}")
        return await self._client.transmit(letter.sender, letter.recipient, letter.content)

    async def _surely(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do something with the database as soon as it is there, and return what comes of it."""
        failures = 0
        while True:
            try:
                return await work()
            except Exception as error:
                if not database_away(error) and not isinstance(error, Unavailable | OSError | TimeoutError):
                    raise
                failures += 1
                _log.warning("mail.database_away", error=f"{type(error).__name__}: {error}")
                await asyncio.sleep(_AGAIN.ceiling(failures).total_seconds())

    async def tend(self) -> None:
        """Call unknown what nobody sends any more, and note how old the oldest is, for ever."""
        while True:
            for template in await self._surely(lambda: store.give_up(self._database)):
                self._metrics.came_into(template, NotificationState.UNKNOWN)
            self._metrics.oldest(await self._surely(lambda: store.oldest(self._database)))
            await asyncio.sleep(min(TEND_EVERY, self._rules.transmission).total_seconds())

    async def expire(self, retention: timedelta) -> None:
        """Delete messages that nobody will look up any more, for ever."""
        while True:
            while await self._surely(lambda: store.expire(self._database, retention)):
                pass
            await asyncio.sleep(EXPIRE_EVERY.total_seconds())


def start_sending(runtime: Runtime, settings: Settings, letters: Letters) -> None:
    """Send in the background of a process; without a mail server messages wait."""
    if settings.smtp is None:
        _log.warning(NO_SERVER)
        return
    url, metrics = settings.smtp, MessageMetrics(runtime.registry)
    client = SmtpClient(lambda: smtp_server(url.get_secret_value()), letters.domain, settings.smtp_timeout)
    sender = MailSender(runtime.database, client, letters, settings.rules, metrics, runtime.draining)
    runtime.background("mail.send", sender.run)
    runtime.background("mail.tend", sender.tend)
    runtime.background("mail.expire", partial(sender.expire, settings.mail_retention))


async def _to_its_end(work: Awaitable[None]) -> None:
    """Do the work; when we are cancelled it may still come to its end, so that nobody need wonder what came of it."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        _, unfinished = await asyncio.wait([task], timeout=FINISH_WITHIN.total_seconds())
        if unfinished:
            task.cancel()
        raise
