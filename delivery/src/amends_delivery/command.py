"""The commands behind the Makefile's targets for images and for kind. Called by `__main__`."""

import argparse
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from amends_delivery import images, inputs
from amends_delivery.kind import secrets, status
from amends_delivery.kind.place import KindCluster
from amends_delivery.kind.ship import ship
from amends_delivery.kind.up import up
from amends_delivery.running import DeliveryError, run

CommandFunction = Callable[[Path, argparse.Namespace, Console], int]


def main() -> int:
    """Do what was asked for; 1 when it failed, after a sentence about why and one about how to mend it."""
    parser = argparse.ArgumentParser(prog="amends-delivery", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (command, about) in COMMANDS.items():
        added = commands.add_parser(name, help=about, description=about)
        added.set_defaults(command=command)
        if name in ("images", "tags"):
            added.add_argument("names", nargs="*", help="deployables; all when none is named")
        elif name == "affected":
            added.add_argument("base", help="a commit, tag or branch")
            added.add_argument("--why", action="store_true", help="print the files that are the reason")
            added.add_argument("--tests", action="store_true", help="print the folders of tests to run instead")
        elif name == "ship":
            added.add_argument("service", help="a deployable")
    asked, console = parser.parse_args(), Console()
    try:
        root = Path(run("git", "rev-parse", "--show-toplevel").strip())
        done: int = asked.command(root, asked, console)
    except DeliveryError as failure:
        shown = Console(stderr=True)
        shown.print(failure.message, style="bold red", markup=False, highlight=False)
        if failure.hint:
            shown.print(failure.hint, markup=False, highlight=False)
        return 1
    return done


def _images(root: Path, asked: argparse.Namespace, console: Console) -> int:
    images.build(root, asked.names, console)
    return 0


def _tags(root: Path, asked: argparse.Namespace, console: Console) -> int:
    for deployable in inputs.named(root, asked.names):
        console.print(images.reference(root, deployable), highlight=False)
    return 0


def _affected(root: Path, asked: argparse.Namespace, console: Console) -> int:
    if asked.tests:
        console.print("\n".join(inputs.folders_of_tests(root, asked.base)), highlight=False, soft_wrap=True)
        return 0
    for name, files in inputs.affected(root, asked.base).items():
        console.print(f"{name}: {', '.join(files)}" if asked.why else name, highlight=False, soft_wrap=True)
    return 0


def _up(root: Path, asked: argparse.Namespace, console: Console) -> int:
    up(root, console)
    return 0


def _down(root: Path, asked: argparse.Namespace, console: Console) -> int:
    cluster = KindCluster.read(root)
    if not cluster.exists:
        console.print(f"there is no cluster {cluster.name}", highlight=False)
        return 0
    cluster.delete()
    console.print(f"the cluster {cluster.name} is gone, and everything in it", highlight=False)
    return 0


def _status(root: Path, asked: argparse.Namespace, console: Console) -> int:
    cluster = KindCluster.standing(root)
    return 0 if status.show(cluster, console) else 1


def _password(root: Path, asked: argparse.Namespace, console: Console) -> int:
    held = secrets.read(KindCluster.standing(root), secrets.ARGOCD, "argocd-initial-admin-secret")
    if "password" not in held:
        raise DeliveryError("Argo CD's first password is not there any more", "Whoever changed it knows the new one.")
    console.print(held["password"], markup=False, highlight=False)
    return 0


def _ship(root: Path, asked: argparse.Namespace, console: Console) -> int:
    ship(root, asked.service, console)
    return 0


COMMANDS: dict[str, tuple[CommandFunction, str]] = {
    "images": (_images, "build the images whose inputs changed"),
    "tags": (_tags, "print the images that the working tree makes"),
    "affected": (_affected, "print the deployables that differ from a revision"),
    "kind-up": (_up, "from nothing to a healthy shop in kind"),
    "kind-down": (_down, "remove the cluster"),
    "kind-status": (_status, "what is deployed, and how it is"),
    "kind-password": (_password, "print Argo CD's first password"),
    "ship": (_ship, "one service, from the working tree into the cluster"),
}
