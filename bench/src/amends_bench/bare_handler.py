"""The peer of the operator: a kopf handler that writes one status patch for each object, and nothing else.

It asks nobody and shows nothing; kopf's settings are its own but for what any handler in one namespace would leave out.
Started by `kubernetes`.
"""

import asyncio
import logging
import os
from typing import Any

import kopf
from amends_operator.kube.login import credentials, session_of
from amends_operator.kube.objects import GROUP, VERSION, ResourceKind

registry = kopf.OperatorRegistry()


@kopf.on.event(GROUP, VERSION, ResourceKind.RUN.value, registry=registry)
async def seen(*, event: kopf.RawEvent, status: kopf.Status, patch: kopf.Patch, **_: Any) -> None:
    """Mark a run as completed, as soon as it is seen."""
    if event["type"] != "DELETED" and "phase" not in status:
        patch.status["phase"] = "Completed"


async def login(**_: Any) -> kopf.AiohttpSession:
    """Log in as the operator does, because this environment has no other Kubernetes client."""
    info = await credentials()
    return kopf.AiohttpSession(
        server=info.server, default_namespace=info.default_namespace, aiohttp_session=session_of(info)
    )


kopf.on.login(registry=registry)(login)


def main() -> None:
    """Handle the namespace in AMENDS_NAMESPACES until a signal stops the process."""
    logging.basicConfig(level=logging.WARNING)
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    namespaces = (os.environ["AMENDS_NAMESPACES"],)
    asyncio.run(kopf.operator(registry=registry, settings=settings, namespaces=namespaces, standalone=True))


if __name__ == "__main__":
    main()
