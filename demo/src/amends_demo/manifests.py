"""Applies examples/place-order to the running orchestrator and monitor, with the addresses that the services got.

Called by `demo` and `up`. The example is a normal set of resources: only the targets differ on this machine.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from amends_chassis.certificates import Certificates
from amends_chassis.dial import dial
from amends_contracts import descriptor_set

from amends.monitor.v1 import monitor_service_pb2
from amends.monitor.v1.monitor_service_pb2_grpc import MonitorServiceStub
from amends.saga.v1 import definition_service_pb2 as api
from amends_demo.place import CHECKOUT

if TYPE_CHECKING:
    from amends.saga.v1.definition_service_pb2_grpc import DefinitionServiceAsyncStub

EXAMPLE = CHECKOUT / "examples" / "place-order"
ORDER = {"Participant": 0, "RetryPolicy": 1, "Saga": 2}
TIMEOUT_SECONDS = 20


CHOREOGRAPHY = EXAMPLE / "choreography.yaml"


class ApplyRefusedError(RuntimeError):
    """A resource of the example was refused. The text has its findings."""


def rendered(targets: Mapping[str, str], folder: Path = EXAMPLE) -> Iterator[tuple[str, str, str]]:
    """Kind, name of the file and text of each resource, in the order in which they need each other.

    `targets` maps protobuf services to host:port. Raises LookupError for a participant that is not among them.
    """
    documents: list[tuple[str, dict[str, Any]]] = []
    for path in sorted(folder.glob("*.yaml")):
        documents += [(path.name, document) for document in yaml.safe_load_all(path.read_text()) if document]
    for source, document in sorted(documents, key=lambda pair: ORDER.get(pair[1]["kind"], len(ORDER))):
        if document["kind"] not in ORDER:
            continue
        if document["kind"] == "Participant":
            document["spec"]["target"] = targets[document["spec"]["service"]]
        yield document["kind"], source, yaml.safe_dump(document, sort_keys=False)


async def apply(definitions: "DefinitionServiceAsyncStub", targets: Mapping[str, str], namespace: str) -> None:
    """Apply the example's resources to the orchestrator. Raises ApplyRefusedError."""
    for kind, source, text in rendered(targets):
        manifest = api.Manifest(text=text, source=source)
        answer: Any
        if kind == "Participant":
            answer = await definitions.ApplyParticipant(
                api.ApplyParticipantRequest(manifest=manifest, namespace=namespace), timeout=TIMEOUT_SECONDS
            )
        elif kind == "RetryPolicy":
            answer = await definitions.ApplyRetryPolicy(
                api.ApplyRetryPolicyRequest(manifest=manifest, namespace=namespace), timeout=TIMEOUT_SECONDS
            )
        else:
            answer = await definitions.ApplySaga(
                api.ApplySagaRequest(manifest=manifest, namespace=namespace), timeout=TIMEOUT_SECONDS
            )
        _refuse(answer, source)


async def watch(monitor: str, certificates: Certificates | None) -> None:
    """Have the choreography watched by the monitor at an address. Raises ApplyRefusedError."""
    request = monitor_service_pb2.ApplyChoreographyRequest(
        manifest=api.Manifest(text=CHOREOGRAPHY.read_text(), source=CHOREOGRAPHY.name),
        descriptors=descriptor_set().SerializeToString(),
    )
    async with dial(monitor, certificates=certificates) as channel:
        answer: Any = await MonitorServiceStub(channel).ApplyChoreography(request, timeout=TIMEOUT_SECONDS)
    _refuse(answer, CHOREOGRAPHY.name)


def _refuse(answer: Any, source: str) -> None:
    if not answer.accepted:
        said = "\n".join(f"{found.source}:{found.line}: {found.message} {found.hint}" for found in answer.findings)
        raise ApplyRefusedError(f"{source} was refused\n{said}")
