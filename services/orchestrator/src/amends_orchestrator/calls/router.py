"""Finds the route to a method: its Participant, the permission to call it, and its policy.

Targets, grants and policies are live: a run that began before a change follows it with its next attempt. A route is
worked out once for each method and namespace, and forgotten when a resource changes. Called by the runner.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from amends_resilience import NamedPolicy, PolicyConflict, RetryPolicy, match
from amends_saga.analysis import Pin, resolve
from amends_saga.definition.resources import Participant
from prometheus_client import Counter

from amends_orchestrator.calls.channels import Channels
from amends_orchestrator.calls.guards import Guards, ParticipantGuard
from amends_orchestrator.calls.outcome import code_name
from amends_orchestrator.calls.ports import ConfinementError, Route, RouteError
from amends_orchestrator.observe import CALL_SECONDS, CALLS, RETRIES


class ProtectedRoute:
    """A route with the guard that protects it and the counters that count it."""

    __slots__ = ("_counted", "guard", "retries", "route", "seconds")

    def __init__(self, route: Route, guard: ParticipantGuard) -> None:
        self.route = route
        self.guard = guard
        self.seconds = CALL_SECONDS.labels(service=route.service, method=route.method)
        self.retries = RETRIES.labels(service=route.service, method=route.method)
        self._counted: dict[int, Counter] = {}

    def count(self, code: int) -> None:
        """Count an attempt that ended with this status."""
        counter = self._counted.get(code)
        if counter is None:
            route = self.route
            labels = {"service": route.service, "method": route.method, "code": code_name(code)}
            counter = self._counted[code] = CALLS.labels(**labels)
        counter.inc()


class Router:
    """Finds routes among the resources that were put in force last."""

    def __init__(self, channels: Channels, guards: Guards) -> None:
        self._channels = channels
        self._guards = guards
        self._participants: dict[str, list[Participant]] = {}
        self._policies: dict[str, list[NamedPolicy]] = {}
        self._pins: Mapping[tuple[str, str], Pin] = {}
        self._routes: dict[tuple[str, str, str], ProtectedRoute] = {}

    def put(
        self,
        participants: Iterable[Participant],
        policies: Iterable[tuple[str, NamedPolicy]],
        pins: Mapping[tuple[str, str], Pin] | None = None,
    ) -> None:
        """Replace the resources in force; policies come by namespace, pinned routes by namespace and service."""
        self._pins = pins or {}
        self._participants = {}
        for participant in participants:
            self._participants.setdefault(participant.service, []).append(participant)
        self._policies = {}
        for namespace, policy in policies:
            self._policies.setdefault(namespace, []).append(policy)
        self._routes = {}

    def route(self, namespace: str, service: str, method: str) -> ProtectedRoute:
        """Return the route by which sagas of `namespace` call a method now. Raises RouteError."""
        protected = self._routes.get((namespace, service, method))
        if protected is None:
            protected = self._routes[namespace, service, method] = self._find(namespace, service, method)
        return protected

    def participant(self, namespace: str, service: str) -> Participant:
        """Return the Participant that serves a service for a namespace. Raises RouteError."""
        serving = self._participants.get(service, ())
        found = resolve(service, namespace, serving, self._pins.get((namespace, service)))
        if not isinstance(found, Participant):
            raise RouteError(found.message)
        return found

    def _find(self, namespace: str, service: str, method: str) -> ProtectedRoute:
        participant = self.participant(namespace, service)
        if not participant.allows(method):
            raise RouteError(f"Participant {participant.metadata.full_name} does not allow {method}")
        policies = self._policies.get(namespace, [])
        policy = match(policies, service, method)
        if isinstance(policy, PolicyConflict):
            raise RouteError(str(policy))
        try:
            invoke = self._channels.invoke(participant.target, f"/{service}/{method}")
        except ConfinementError as error:
            raise RouteError(str(error)) from None
        name = participant.metadata.full_name
        guard = self._guards.of(name, service, _policy_name(policies, policy), policy)
        route = Route(service, method, name, policy, invoke, self._channels.max_message_bytes)
        return ProtectedRoute(route, guard)


def _policy_name(policies: Iterable[NamedPolicy], policy: RetryPolicy) -> str:
    return next((named.name for named in policies if named.policy is policy), "")
