"""Limits the addresses that this orchestrator calls, whatever a Participant says.

A saga names methods, never addresses. An administrator's Participant names the address. AMENDS_TARGETS, set by the
operator of the orchestrator, limits which addresses an administrator can name. The limit is checked when a Participant
is applied and again at every call, because settings differ between replicas and releases.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from amends_chassis.text import brief

from amends_orchestrator.calls.ports import ConfinementError

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_PORT = r"(?P<port>[1-9][0-9]{0,4})"
_DNS = re.compile(rf"dns:///(?P<host>{_LABEL}(?:\.{_LABEL})*):{_PORT}")
_LOOPBACK = re.compile(rf"(?:dns:///)?(?P<host>127\.0\.0\.1|\[::1\]|localhost):{_PORT}")
_CLUSTER = re.compile(rf"(?P<service>{_LABEL})\.(?P<namespace>{_LABEL})\.svc(?:\.cluster\.local)?")
_SUFFIX = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_LONGEST = 253

# The name of the API server in every cluster.
_FORBIDDEN_SERVICES = frozenset({("kubernetes", "default")})


class TargetScope(StrEnum):
    """Where participants may be."""

    CLUSTER = "cluster"
    """Services of this Kubernetes cluster, and the suffixes of the allow-list."""
    LOOPBACK = "loopback"
    """As CLUSTER, and this machine too: for development."""


@dataclass(frozen=True, slots=True)
class TargetRules:
    """The rules of AMENDS_TARGETS and AMENDS_TARGET_SUFFIXES. Raises ValueError for a suffix that is no DNS name."""

    scope: TargetScope = TargetScope.CLUSTER
    suffixes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for suffix in self.suffixes:
            if not _SUFFIX.fullmatch(suffix) or suffix.rpartition(".")[2].isdigit():
                raise ValueError(f"{suffix!r} is no DNS suffix")

    @property
    def forms(self) -> tuple[str, ...]:
        """How a target may be written here, for people."""
        named = tuple(f"dns:///{'name.' if '.' in suffix else ''}{suffix}:port" for suffix in self.suffixes)
        local = ("127.0.0.1:port", "[::1]:port", "localhost:port") if self.scope is TargetScope.LOOPBACK else ()
        return ("dns:///service.namespace.svc.cluster.local:port", *named, *local)

    def check(self, target: str) -> str:
        """Return the target in the form in which it is dialled. Raises ConfinementError with a sentence for people."""
        loopback = _LOOPBACK.fullmatch(target)
        if loopback is not None:
            return self._local(loopback["host"], loopback["port"])
        named = _DNS.fullmatch(target)
        if named is None:
            raise ConfinementError(f"`{brief(target)}` has no form of a target")
        host, port = named["host"], _port(named["port"])
        if len(host) > _LONGEST or host.rsplit(".", 1)[-1].isdigit():
            raise ConfinementError(f"`{brief(host)}` is no DNS name")
        cluster = _CLUSTER.fullmatch(host)
        if cluster is not None and (cluster["service"], cluster["namespace"]) in _FORBIDDEN_SERVICES:
            raise ConfinementError("the Kubernetes API server is no participant")
        if cluster is None and not any(_is_under(host, suffix) for suffix in self.suffixes):
            raise ConfinementError(
                f"`{host}` is neither a service of this cluster nor under an allowed suffix (AMENDS_TARGET_SUFFIXES)"
            )
        return f"dns:///{host}:{port}"

    def _local(self, host: str, port: str) -> str:
        if self.scope is not TargetScope.LOOPBACK:
            raise ConfinementError("targets on this machine are only allowed with AMENDS_TARGETS=loopback")
        return f"{'127.0.0.1' if host == 'localhost' else host}:{_port(port)}"


def _is_under(host: str, suffix: str) -> bool:
    """Return whether a suffix allows a host; one of a single label, such as a name of a compose file, only itself."""
    return host == suffix or ("." in suffix and host.endswith(f".{suffix}"))


def _port(digits: str) -> int:
    port = int(digits)
    if port > 65535:
        raise ConfinementError(f"{digits} is no port")
    return port
