"""`make kind-status`: what is deployed and how it is. Called by `command`."""

from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from amends_delivery.kind import argocd
from amends_delivery.kind.place import KindCluster
from amends_delivery.kind.secrets import NAMESPACES


def show(cluster: KindCluster, console: Console) -> bool:
    """Print the Applications, and pods that are not ready; whether all is well."""
    found = argocd.applications(cluster)
    table = Table("application", "sync", "health", "revision", "", box=box.SIMPLE_HEAD)
    names = sorted({*argocd.expected(cluster.root), *found})
    for name in names:
        state = found.get(name)
        if state is None:
            table.add_row(name, "[red]Missing[/]", "", "", "argocd/envs/kind asks for it")
            continue
        style = "green" if state.well else "yellow"
        table.add_row(
            name, f"[{style}]{state.sync}[/]", f"[{style}]{state.health}[/]", state.revision[:8], escape(state.message)
        )
    console.print(table)
    waiting = [line for namespace in NAMESPACES for line in _waiting(cluster, namespace)]
    for line in waiting:
        console.print(f"  {line}", markup=False, highlight=False)
    ports = ", ".join(map(str, cluster.ports))
    console.print(f"kubectl context kind-{cluster.name}; published on 127.0.0.1: {ports}", highlight=False)
    return not waiting and all(name in found and found[name].well for name in names)


def _waiting(cluster: KindCluster, namespace: str) -> list[str]:
    pods = cluster.get("pods", "-n", namespace) or {"items": []}
    return [said for pod in pods["items"] if (said := _not_ready(pod))]


def _not_ready(pod: dict[str, Any]) -> str:
    status, name = pod.get("status", {}), f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    if status.get("phase") == "Succeeded" or pod["metadata"].get("deletionTimestamp"):
        return ""
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        waiting = container.get("state", {}).get("waiting")
        if waiting:
            return f"{name}: {container['name']} {waiting.get('reason', 'waits')} {waiting.get('message', '')}".rstrip()
        if "terminated" not in container.get("state", {}) and not container.get("ready"):
            return f"{name}: {container['name']} is not ready"
    return "" if status.get("containerStatuses") else f"{name}: {status.get('phase', 'Pending')}"
