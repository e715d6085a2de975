"""`make kind-up`: from nothing to a healthy shop.

Every step looks at what is there, so it can be repeated at any point. Called by `command`.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import yaml
from amends_demo.mail import know_customer
from amends_demo.shop import Shop, reaching
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from amends_delivery import images, inputs
from amends_delivery.kind import argocd, git, place, secrets
from amends_delivery.kind.place import KindCluster
from amends_delivery.running import run

HEALTHY_WITHIN = timedelta(minutes=8)
ADDRESSES = {
    "orders": "127.0.0.1:7410",
    "inventory": "127.0.0.1:7411",
    "payments": "127.0.0.1:7412",
    "shipping": "127.0.0.1:7413",
    "reporting": "127.0.0.1:7416",
}
ORCHESTRATOR = "127.0.0.1:7400"
CUSTOMERS = "127.0.0.1:7415"
GIT_SERVER = "git-server"
END = """
[bold green]The shop is up[/], deployed by Argo CD from {revision}. Place an order:

  grpcurl -plaintext -d '{{"orderId": "o-1", "customerId": "ada", "cardToken": "tok_visa", "wait": true,
    "lines": [{{"sku": "tea-assam", "quantity": 1}}], "address": {{"recipient": "Ada", "street": "Rosenweg 3",
    "city": "Berlin", "postalCode": "10115", "country": "DE"}}}}' {orders} shop.orders.v1.OrderService/PlaceOrder

Deploy: `make ship SERVICE=payments` builds and pushes a service, `git push kind HEAD:main` any other commit.

  make kind-status         what is deployed, and how it is
  kubectl get amends -A    sagas, runs, participants and policies (context kind-{cluster})
  http://127.0.0.1:7480    the shop: its pages, and REST below /v1/
  http://127.0.0.1:7440    the inbox of the mail catcher: what customers are told
  http://127.0.0.1:7420    Argo CD, user admin; its password: make kind-password
"""


def up(root: Path, console: Console) -> None:
    """Bring the cluster, the images, Argo CD and the shop up. Raises DeliveryError."""
    began = time.monotonic()
    place.check_programs()
    images.check_engine()
    git.check_whole(root)
    cluster = KindCluster.read(root)
    console.print("[bold]Images[/]")
    tags = images.build(root, (), console)
    with _step(console, f"the cluster {cluster.name}"):
        if not cluster.exists:
            cluster.create()
        cluster.check()
    with _step(console, "images into the node"):
        release = argocd.manifest()
        load(cluster, wanted(root, tags, release))
    with _step(console, "Argo CD, namespaces and generated secrets"):
        argocd.install(cluster, release)
        secrets.make_namespaces(cluster)
        secrets.make_databases(cluster)
        secrets.make_caches(cluster)
        secrets.make_keys(cluster)
        tokens = secrets.make_git(cluster)
    with _step(console, "the git server"):
        install_git_server(cluster, tags[GIT_SERVER])
    with _step(console, "Argo CD is ready"):
        argocd.finish(cluster, tokens["webhook"])
    with _step(console, "git push kind"):
        if git.set_tags(root, tags, "kind: deploy what is built"):
            console.print("  committed the image tags in argocd/envs/kind", highlight=False)
        git.set_remote(root, tokens["push"])
        revision = git.push(root)
    wait_for_all(cluster, revision, console)
    with _step(console, "prices, stock and parcels for the shop"):
        asyncio.run(_stock_up())
    console.print(f"  after {time.monotonic() - began:.0f} s", style="dim")
    told = END.format(revision=revision[:8], orders=ADDRESSES["orders"], cluster=cluster.name)
    console.print(told, highlight=False, soft_wrap=True)


@contextmanager
def _step(console: Console, what: str) -> Iterator[None]:
    began = time.monotonic()
    with console.status(what):
        yield
    console.print(f"[bold]{what}[/] [dim]{time.monotonic() - began:.0f} s[/]", highlight=False)


def wanted(root: Path, tags: dict[str, str], release: bytes) -> list[str]:
    """Return all images that the cluster runs: ours, and those of others that the charts and Argo CD name."""
    ours = [f"{images.repository(one)}:{tags[one.name]}" for one in inputs.named(root, tags)]
    others = argocd.images(release)
    for chart in ("cache", "kafka", "nats", "postgres"):
        image = yaml.safe_load((root / "charts" / chart / "values.yaml").read_text())["image"]
        others.append(f"{image['repository']}:{image['tag']}")
    return ours + others


def load(cluster: KindCluster, wanted_images: list[str]) -> None:
    """Copy into the node what it lacks and the engine has; what the engine lacks too, the node pulls."""
    held = cluster.images()
    missing = [image for image in wanted_images if image not in held and images.exists(image)]
    if missing:
        cluster.load(missing)


def install_git_server(cluster: KindCluster, tag: str) -> None:
    """Install the git server by helm, because Argo CD has nothing to deploy from before it."""
    run(
        *("helm", "upgrade", "--install", "git-server", str(cluster.root / "charts" / GIT_SERVER)),
        *("--kube-context", f"kind-{cluster.name}", "--namespace", secrets.GITOPS),
        *("--set", f"image.tag={tag}", "--wait", "--timeout", "180s"),
    )


def wait_for_all(cluster: KindCluster, revision: str, console: Console) -> None:
    """Wait until every Application of the environment is deployed from this revision, and healthy."""
    names = argocd.expected(cluster.root)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("[bold]Applications healthy[/]", total=len(names))

        argocd.wait_for(
            cluster, names, revision, HEALTHY_WITHIN, lambda done: progress.update(bar, completed=len(done))
        )


async def _stock_up() -> None:
    async with reaching(ADDRESSES, ORCHESTRATOR) as shop:
        await _patiently(shop)


async def _patiently(shop: Shop) -> None:
    """Wait until the node's ports answer: they lead to new pods, and the network needs a moment to know them."""
    for _ in range(20):
        try:
            await shop.stock_up()
            await know_customer(CUSTOMERS)
        except Exception:
            await asyncio.sleep(0.5)
        else:
            return
    await shop.stock_up()
    await know_customer(CUSTOMERS)
