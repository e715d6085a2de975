"""`make ship SERVICE=payments`: one service, from the working tree into the cluster. Called by `command`."""

import time
from datetime import timedelta
from pathlib import Path

from rich.console import Console

from amends_delivery import images, inputs
from amends_delivery.kind import argocd, git
from amends_delivery.kind.place import KindCluster
from amends_delivery.running import DeliveryError

WITHIN = timedelta(minutes=3)


def ship(root: Path, service: str, console: Console) -> None:
    """Build, load, write the tag, commit, push, and wait until the service runs as pushed. Raises DeliveryError."""
    if not (root / argocd.ENVIRONMENT / f"{service}.yaml").exists():
        raise DeliveryError(
            f"{argocd.ENVIRONMENT} has no {service}.yaml: nothing of that name is deployed",
            f"There are: {', '.join(argocd.expected(root))}.",
        )
    began = time.monotonic()
    cluster = KindCluster.standing(root)
    (deployable,) = inputs.named(root, [service])
    tag = images.build(root, [service], console)[service]
    image = f"{images.repository(deployable)}:{tag}"
    if image not in cluster.images():
        with console.status(f"loading {image}"):
            cluster.load([image])
    committed = git.set_tags(root, {service: tag}, f"kind: deploy {service} {tag}")
    if not committed:
        console.print(f"{service} is deployed as it is: nothing that its image is made of has changed", highlight=False)
    pushed = time.monotonic()
    revision = git.push(root)
    with console.status(f"waiting until {service} runs {tag}"):
        argocd.wait_for(cluster, [service], revision, WITHIN, lambda done: None)
    took = time.monotonic() - pushed
    whole = time.monotonic() - began
    console.print(
        f"[bold green]{service} runs {tag}[/], {took:.0f} s after the push, {whole:.0f} s in all.", highlight=False
    )
    if committed:
        console.print("Back again: git revert --no-edit HEAD && git push kind HEAD:main", highlight=False)
