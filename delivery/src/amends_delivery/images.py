"""Builds the images whose inputs changed. Called by `make images`, `make kind-up` and `make ship`."""

import time
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from amends_delivery import inputs
from amends_delivery.inputs import Deployable
from amends_delivery.running import DeliveryError, attempt, run

NO_ENGINE = "Start Docker: on Debian `apt-get install docker.io`, elsewhere Docker Desktop; `docker info` must answer."


def reference(root: Path, deployable: Deployable) -> str:
    """Return the name and tag of the image that the working tree makes."""
    return f"{repository(deployable)}:{inputs.tag(root, deployable)}"


def repository(deployable: Deployable) -> str:
    """Return the image's name without a tag."""
    return f"amends/{deployable.name}"


def check_engine() -> None:
    """Raise DeliveryError when no container engine answers."""
    answer = attempt("docker", "info", "--format", "{{.ServerVersion}}")
    if answer.returncode != 0:
        raise DeliveryError(f"no container engine answers: {answer.stderr.strip()}", NO_ENGINE)


def exists(image: str) -> bool:
    """Return whether the container engine already has an image."""
    return attempt("docker", "image", "inspect", "--format", "{{.Id}}", image).returncode == 0


def build(root: Path, names: Iterable[str], console: Console) -> dict[str, str]:
    """Build what is not there yet, and return the tags by deployable. Raises DeliveryError."""
    check_engine()
    tags = {}
    for deployable in inputs.named(root, tuple(names)):
        image = reference(root, deployable)
        tags[deployable.name] = image.rpartition(":")[2]
        if exists(image):
            console.print(f"  {image}  [dim]is there[/]", highlight=False)
            continue
        began = time.monotonic()
        with console.status(f"building {image}"):
            _build(root, deployable, image)
        console.print(f"  {image}  [dim]built in {time.monotonic() - began:.0f} s[/]", highlight=False)
    return tags


def _build(root: Path, deployable: Deployable, image: str) -> None:
    revision = run("git", "rev-parse", "HEAD", cwd=root).strip()
    run(
        *("docker", "build", "--quiet", "--file", deployable.dockerfile, "--tag", image),
        *("--build-arg", f"BASE_IMAGE={inputs.base_image()}"),
        *("--build-arg", f"REVISION={revision}", "--build-arg", f"VERSION={image.rpartition(':')[2]}"),
        ".",
        cwd=root,
        more={"DOCKER_BUILDKIT": "1"},
        hint=f"All that it said: docker build --file {deployable.dockerfile} .",
    )
