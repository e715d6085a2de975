"""The input files of each image: its tag is their hash, so a change gives new tags to the images that it touches.

The COPY lines of a deployable's Dockerfile are the only place where its inputs are written down. Nothing else gets
into the build, so what they name is exactly what the image depends on. Called by `images`, `kind` and `make affected`.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from amends_delivery.running import DeliveryError, run

DOCKERFILES = tuple(
    f"{folder}/Dockerfile" for folder in ("services/*", "operator", "argocd/git-server", "demo/mail-catcher")
)
DEFAULT_BASE = "python:3.13-slim"
LIBRARY_CHART = "charts/microservice"
EVERYTHING = ("requirements.lock", "pyproject.toml", "Makefile", ".ci/run")
_COPY = re.compile(r"^COPY (?!--from)(\S+) \S+$", re.MULTILINE)
TAG_LENGTH = 12


@dataclass(frozen=True, slots=True)
class Deployable:
    """One thing that is deployed: one image and one chart."""

    name: str
    folder: str
    """Where its Dockerfile is, below the root."""
    inputs: tuple[str, ...]
    """Files and folders, below the root, that get into its image."""

    @property
    def dockerfile(self) -> str:
        """Return the path of the Dockerfile, below the root."""
        return f"{self.folder}/Dockerfile"


def base_image() -> str:
    """Return the image that all others stand on: BASE_IMAGE, or the public one."""
    return os.environ.get("BASE_IMAGE", DEFAULT_BASE)


def deployables(root: Path) -> dict[str, Deployable]:
    """Return all deployables that have an image, by name."""
    found = {}
    for path in sorted(path for pattern in DOCKERFILES for path in root.glob(pattern)):
        folder = path.parent.relative_to(root).as_posix()
        inputs = tuple(sorted({f"{folder}/Dockerfile", *_COPY.findall(path.read_text())}))
        found[path.parent.name] = Deployable(path.parent.name, folder, inputs)
    return found


def named(root: Path, names: Iterable[str]) -> list[Deployable]:
    """Return the deployables of these names; all when there is none. Raises DeliveryError for an unknown name."""
    known = deployables(root)
    for name in names:
        if name not in known:
            raise DeliveryError(f"there is no deployable called {name}", f"There are: {', '.join(known)}.")
    return [known[name] for name in names or known]


def tag(root: Path, deployable: Deployable, base: str = "") -> str:
    """Return the tag of the image that the working tree makes: the hash of all that gets into it."""
    digest = hashlib.sha256(f"{base or base_image()}\n".encode())
    for name in files(root, deployable):
        path = root / name
        runs = "x" if os.access(path, os.X_OK) else "-"
        digest.update(f"{name}\0{runs}{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:TAG_LENGTH]


def files(root: Path, deployable: Deployable) -> list[str]:
    """Return the files of the working tree that get into the image, sorted. What git ignores does not."""
    listed = run("git", "ls-files", "-z", "-co", "--exclude-standard", "--", *deployable.inputs, cwd=root)
    left_out = _left_out(root)
    found = sorted({name for name in listed.split("\0") if name and not left_out(name) and (root / name).is_file()})
    for wanted in deployable.inputs:
        if not any(_below(name, wanted) for name in found):
            raise DeliveryError(f"{deployable.dockerfile} copies {wanted}, and there is nothing there")
    return found


def affected(root: Path, base: str) -> dict[str, list[str]]:
    """Return the deployables that differ between a revision and the working tree, with the files that are the reason.

    A file counts when it gets into the image or is of the chart. Raises DeliveryError for an unknown revision.
    """
    left_out = _left_out(root)
    changed = changes(root, base)
    found: dict[str, list[str]] = {}
    for deployable in deployables(root).values():
        charts = _charts(root, deployable.name)
        because = [
            name
            for name in changed
            if any(_below(name, folder) for folder in charts)
            or (not left_out(name) and any(_below(name, wanted) for wanted in deployable.inputs))
        ]
        if because:
            found[deployable.name] = because
    return found


def _charts(root: Path, name: str) -> list[str]:
    """Return the folders that a deployable's chart is made of."""
    own = f"charts/{name}"
    stands_on = Path(root, own, "Chart.yaml").read_text(encoding="utf-8")
    return [own, LIBRARY_CHART] if Path(LIBRARY_CHART).name in stands_on else [own]


def folders_of_tests(root: Path, base: str) -> list[str]:
    """Return the folders whose tests a change concerns: of affected deployables, of what changed itself, of charts.

    A change of what all stand on (the lock, the settings of the tools) concerns everything.
    """
    changed = changes(root, base)
    if any(name in EVERYTHING for name in changed):
        return ["."]
    known = deployables(root)
    found = {known[name].folder for name in affected(root, base)} | {"tests/architecture"}
    for name in changed:
        found |= {str(parent) for parent in Path(name).parents if (root / parent / "pyproject.toml").exists()}
        found |= {"tests/charts", "tests/argocd"} if name.startswith(("charts/", "argocd/")) else set()
        found |= {"/".join(name.split("/")[:2])} if name.startswith("tests/") else set()
    if "operator" in found:
        found.add("tests/kubernetes")
    return sorted(name for name in found - {"."} if next((root / name).rglob("test_*.py"), None))


def changes(root: Path, base: str) -> list[str]:
    """Return the files that differ between a revision and the working tree, with those that are new."""
    hint = "Name a commit, a tag or a branch: make affected BASE=main"
    run("git", "rev-parse", "--verify", "--quiet", f"{base}^{{commit}}", cwd=root, hint=hint)
    differ = run("git", "diff", "--name-only", "--no-renames", "-z", base, cwd=root)
    new = run("git", "ls-files", "-z", "--others", "--exclude-standard", cwd=root)
    return sorted({name for name in (differ + new).split("\0") if name})


def _below(name: str, folder: str) -> bool:
    return name == folder or name.startswith(f"{folder}/")


def _left_out(root: Path) -> Callable[[str], bool]:
    """Return what says whether .dockerignore keeps a file out of every image. Knows the two forms that we use."""
    lines = (root / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    anywhere = [pattern.removeprefix("**/") for pattern in patterns if pattern.startswith("**/")]
    folders = [pattern for pattern in patterns if not pattern.startswith("**/")]

    def left_out(name: str) -> bool:
        parts = name.split("/")
        return any(_below(name, folder) for folder in folders) or any(
            fnmatchcase(part, pattern) for part in parts for pattern in anywhere
        )

    return left_out
