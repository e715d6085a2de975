"""Finds the one policy that holds for a method: the most specific wins, a tie is a conflict for a person.

Pure. Called by the orchestrator for every method it may call, by the saga checker and by clients
that reload their policies.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from amends_resilience.policy import RetryPolicy

ANY = "*"


@dataclass(frozen=True, slots=True)
class Selector:
    """The methods that a policy is for. Names are exact; an empty tuple, or `*` in it, means all."""

    participants: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()

    def rank(self, service: str, method: str) -> int | None:
        """Return how specific a match is, None if there is none.

        3: names both; 2: names the service; 1: names the method, of any service; 0: all of everything.
        """
        of_service, of_method = _part(self.participants, service), _part(self.methods, method)
        if of_service is None or of_method is None:
            return None
        return 2 * of_service + of_method

    def ties_with(self, other: "Selector") -> bool:
        """Return whether there is any method that both match equally well, so that neither of the two holds for it."""
        return _meet(self.participants, other.participants) and _meet(self.methods, other.methods)


@dataclass(frozen=True, slots=True)
class NamedPolicy:
    """A policy with the name of its resource and what it is for."""

    name: str
    selector: Selector
    policy: RetryPolicy


@dataclass(frozen=True, slots=True)
class PolicyConflict:
    """Several policies match equally well: which one holds is for a person to say."""

    service: str
    method: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.service}/{self.method} is matched equally well by the retry policies {', '.join(self.names)}."


def match(policies: Iterable[NamedPolicy], service: str, method: str) -> RetryPolicy | PolicyConflict:
    """Return the policy for a method, by full service name and bare method name.

    The result does not depend on the order of `policies`. Without any match it is the default RetryPolicy; of several
    of the same, highest rank it is the PolicyConflict that names them, sorted, even if they say the same.
    """
    best: list[NamedPolicy] = []
    highest = -1
    for candidate in policies:
        rank = candidate.selector.rank(service, method)
        if rank is None or rank < highest:
            continue
        if rank > highest:
            best, highest = [], rank
        best.append(candidate)
    if len(best) > 1:
        return PolicyConflict(service, method, tuple(sorted(candidate.name for candidate in best)))
    return best[0].policy if best else RetryPolicy()


def _part(names: tuple[str, ...], name: str) -> int | None:
    if name in names:
        return 1
    return 0 if not names or ANY in names else None


def _meet(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Return whether both name one thing in common, or both mean all: some name is always spelled out by neither."""
    if (not one or ANY in one) and (not other or ANY in other):
        return True
    return not ({*one} - {ANY}).isdisjoint(other)
