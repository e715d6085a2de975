"""Retry policies from a file that changes while the process runs: how clients follow RetryPolicy resources.

The operator compiles the RetryPolicies of a namespace into one ConfigMap; mounted, its key `policies.json` is this
file. It is looked at every second, through whatever symbolic links a mount swaps. What cannot be read leaves the
former policies in force. Called by `Runtime.channel` when AMENDS_RETRY_POLICIES is set.
"""

import asyncio
import json
import random
from collections.abc import Callable, Generator, Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, cast

import grpc
import structlog
from amends_resilience import (
    Backoff,
    BreakerPolicy,
    BudgetPolicy,
    BulkheadPolicy,
    NamedPolicy,
    PolicyConflict,
    RetryBudget,
    RetryPolicy,
    Selector,
    SystemClock,
    deadline,
    match,
)
from amends_resilience.durations import parse_duration

from amends_chassis.pushback import NEVER, asked_pause

_log = structlog.get_logger(__name__)

CHANGED = "policies.changed"
UNREADABLE = "policies.unreadable"
CONFLICTED = "policies.conflict"
FORMAT = 1
EVERY = timedelta(seconds=1)


class PoliciesError(ValueError):
    """The text is no compiled policies; the message says why."""


def parse(text: str) -> tuple[NamedPolicy, ...]:
    """Read compiled policies: the specs of RetryPolicies with their names. Raises PoliciesError."""
    try:
        document = json.loads(text)
        if document["version"] != FORMAT:
            raise PoliciesError(f"version {document['version']} is not known here")
        return tuple(_named(entry) for entry in document["policies"])
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise PoliciesError(f"{type(error).__name__}: {error}") from None


def _named(entry: Mapping[str, Any]) -> NamedPolicy:
    selector, default = entry.get("selector") or {}, RetryPolicy()
    policy = RetryPolicy(
        timeout=_duration(entry.get("timeout"), default.timeout),
        attempts=entry.get("attempts", default.attempts),
        backoff=_backoff(entry.get("backoff") or {}),
        retry_on=frozenset(entry.get("retryOn", default.retry_on)),
        budget=_budget(entry.get("budget") or {}),
        circuit_breaker=_breaker(entry.get("circuitBreaker") or {}),
        bulkhead=_bulkhead(entry.get("bulkhead") or {}),
    )
    wrong = policy.validate()
    if wrong:
        raise PoliciesError(f"{entry['name']}: {wrong[0]}")
    chosen = Selector(tuple(selector.get("participants") or ()), tuple(selector.get("methods") or ()))
    return NamedPolicy(entry["name"], chosen, policy)


def _duration(text: str | None, default: timedelta) -> timedelta:
    if text is None:
        return default
    try:
        return parse_duration(text)
    except ValueError as error:
        raise PoliciesError(str(error)) from None


def _backoff(given: Mapping[str, Any]) -> Backoff:
    default = Backoff()
    initial = _duration(given.get("initial"), default.initial)
    longest = _duration(given.get("max"), max(default.maximum, initial))
    return Backoff(initial, longest, given.get("multiplier", default.multiplier))


def _budget(given: Mapping[str, Any]) -> BudgetPolicy:
    default = BudgetPolicy()
    return BudgetPolicy(given.get("ratio", default.ratio), given.get("minPerSecond", default.min_per_second))


def _breaker(given: Mapping[str, Any]) -> BreakerPolicy:
    default = BreakerPolicy()
    return BreakerPolicy(
        given.get("failureRatio", default.failure_ratio),
        given.get("minimumCalls", default.minimum_calls),
        _duration(given.get("window"), default.window),
        _duration(given.get("openFor"), default.open_for),
    )


def _bulkhead(given: Mapping[str, Any]) -> BulkheadPolicy:
    default = BulkheadPolicy()
    return BulkheadPolicy(
        given.get("maxConcurrent", default.max_concurrent), given.get("maxQueued", default.max_queued)
    )


@cache
def repeatable() -> frozenset[str]:
    """Return the methods ("/package.Service/Method") whose contracts say that a second call does no harm."""
    from amends_contracts import descriptor_set

    return frozenset(
        f"/{file.package}.{service.name}/{method.name}"
        for file in descriptor_set().file
        for service in file.service
        for method in service.method
        if method.options.idempotency_level  # NO_SIDE_EFFECTS or IDEMPOTENT
    )


class PolicySource:
    """The policies in a file, as they are now."""

    def __init__(self, path: Path) -> None:
        """Read the file, if it is there already."""
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._policies: tuple[NamedPolicy, ...] = ()
        self._found: dict[str, RetryPolicy | None] = {}
        self._budgets: dict[str, RetryBudget] = {}
        self.look()

    def find(self, method: str) -> RetryPolicy | None:
        """Return the policy of "/package.Service/Method"; None when none selects it, or two do just as well."""
        if method not in self._found:
            self._found[method] = self._match(method)
        return self._found[method]

    def _match(self, method: str) -> RetryPolicy | None:
        service, _, name = method.removeprefix("/").partition("/")
        if all(policy.selector.rank(service, name) is None for policy in self._policies):
            return None
        found = match(self._policies, service, name)
        if isinstance(found, PolicyConflict):
            _log.warning(CONFLICTED, method=method, policies=found.names)
            return None
        return found

    def budget(self, method: str, policy: RetryPolicy) -> RetryBudget:
        """Return the retry budget of the method's service."""
        service = method.removeprefix("/").partition("/")[0]
        if service not in self._budgets:
            self._budgets[service] = RetryBudget(policy.budget, SystemClock())
        return self._budgets[service]

    def look(self) -> bool:
        """Read the file when it is another than before; tell whether the policies have changed."""
        try:
            status = self._path.stat()  # follows links, so a swapped one is seen
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen == self._seen:
                return False
            policies = parse(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return False
        except (OSError, UnicodeDecodeError, PoliciesError) as error:
            _log.warning(UNREADABLE, path=str(self._path), error=str(error))
            return False
        self._seen = seen
        if policies == self._policies:
            return False
        self._policies, self._found, self._budgets = policies, {}, {}
        _log.info(CHANGED, policies=[policy.name for policy in policies])
        return True

    async def run(self) -> None:
        """Look for new policies for ever, once per interval."""
        while True:
            await asyncio.sleep(EVERY.total_seconds())
            self.look()


class RetriedCall:
    """One logical call of several attempts, in place of a call of grpc.aio."""

    def __init__(self, attempt: Callable[[], Any], policy: RetryPolicy, budget: RetryBudget) -> None:
        """Send nothing yet: the first attempt is made when the call is awaited."""
        self._attempt = attempt
        self._policy = policy
        self._budget = budget
        self._call: Any = None

    def __await__(self) -> Generator[Any, None, Any]:
        """Return the response, or raise the last attempt's AioRpcError."""
        return self._run().__await__()

    async def _run(self) -> Any:
        self._budget.deposit()
        number = 1
        while True:
            self._call = self._attempt()
            try:
                return await self._call
            except grpc.aio.AioRpcError as error:
                pause = self._pause(error, number)
                if pause is None or not self._budget.withdraw():
                    raise
            await asyncio.sleep(pause.total_seconds())
            number += 1

    def _pause(self, error: grpc.aio.AioRpcError, number: int) -> timedelta | None:
        """Return how long to wait before another attempt; None when there is none.

        A server that asks for a pause gets it, and jitter on top; one that asks for more than the policy, or the
        caller's deadline, allows for is not called again.
        """
        if not self._policy.again(error.code().name, number):
            return None
        asked = asked_pause(cast("Any", error.trailing_metadata()))
        own = self._policy.backoff.delay(number, random.random)
        if asked is None:
            return own
        left = deadline.remaining()
        bound = self._policy.worst_case() if left is None else min(left, self._policy.worst_case())
        return None if asked == NEVER or asked > bound else asked + own

    def cancel(self) -> bool:
        """Cancel the attempt under way."""
        return bool(self._call is not None and self._call.cancel())

    async def code(self) -> grpc.StatusCode:
        """Return the status of the last attempt."""
        code: grpc.StatusCode = await self._call.code()
        return code

    async def details(self) -> str:
        """Return the details of the last attempt."""
        return str(await self._call.details())

    async def trailing_metadata(self) -> Any:
        """Return the trailing metadata of the last attempt."""
        return await self._call.trailing_metadata()
