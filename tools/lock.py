"""Writes the lock files: one for the workspace, one for each deployable, one for building. Called by `make lock`.

The lock at the root holds every third-party package that any distribution or the dev group names, with hashes. A
deployable's lock is resolved from what it and the local packages below it need, under the root's lock as constraint,
so that the two can never disagree; what builds the local packages inside an image has one too. No lock names a
package index: they work behind any mirror.
Run it with the workspace's own Python; it needs nothing but `uv` beside it.
"""

import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
PYTHON_FLOOR = "3.11"
DEPLOYABLES = ("services/*", "operator", "cli", "demo/mail-catcher", "argocd/git-server")
FOLDERS = ("libs/*", "demo", "delivery", "simulation", *DEPLOYABLES)
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)")


@dataclass(frozen=True, slots=True)
class Distribution:
    """One local package: where it is, and what its pyproject.toml asks for."""

    folder: Path
    name: str
    requirements: tuple[str, ...]
    build_requirements: tuple[str, ...]


def requirement_name(requirement: str) -> str:
    """Return the normalised distribution name of a PEP 508 requirement, e.g. `PyYAML>=6` gives `pyyaml`."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    if match is None:
        raise ValueError(f"not a requirement: {requirement!r}")
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def distributions(root: Path, patterns: tuple[str, ...] = FOLDERS) -> list[Distribution]:
    """Return every local package below `root` in the order of their folders."""
    found = []
    for path in sorted(path for pattern in patterns for path in root.glob(f"{pattern}/pyproject.toml")):
        data = tomllib.loads(path.read_text())
        found.append(
            Distribution(
                folder=path.parent,
                name=requirement_name(data["project"]["name"]),
                requirements=tuple(data["project"].get("dependencies", ())),
                build_requirements=tuple(data["build-system"]["requires"]),
            )
        )
    return found


def closure(start: Distribution, local: dict[str, Distribution]) -> list[Distribution]:
    """Return `start` and every local package that it needs, directly or through others, sorted by folder."""
    seen: dict[str, Distribution] = {}
    pending = [start]
    while pending:
        current = pending.pop()
        if current.name in seen:
            continue
        seen[current.name] = current
        pending += [local[name] for name in map(requirement_name, current.requirements) if name in local]
    return sorted(seen.values(), key=lambda distribution: distribution.folder)


def pins(lock: Path) -> dict[str, str]:
    """Return what a lock file pins, as `{normalised name: version}`."""
    lines = (PINNED.match(line) for line in lock.read_text().splitlines())
    return {requirement_name(match[1]): match[2] for match in lines if match}


def compile_lock(root: Path, wanted: dict[str, list[str]], output: Path, constraint: Path | None) -> None:
    """Resolve `wanted` (folder name to third-party requirements) into the lock file `output`.

    What `output` pins already is kept while it still fits. Raises subprocess.CalledProcessError when nothing fits.
    """
    with TemporaryDirectory() as scratch:
        for folder, requirements in wanted.items():
            # A stripped copy at the same place, so that the lock's comments name the real file.
            copy = Path(scratch, folder, "pyproject.toml")
            copy.parent.mkdir(parents=True, exist_ok=True)
            listed = "".join(f"  {requirement!r},\n" for requirement in requirements)
            copy.write_text(
                f'[project]\nname = "{Path(folder).name or "amends-workspace"}"\nversion = "0"\n'
                f'requires-python = ">={PYTHON_FLOOR}"\ndependencies = [\n{listed}]\n'
            )
        command = [
            *(str(Path(sys.executable).with_name("uv")), "pip", "compile", "--quiet"),
            *("--universal", "--python-version", PYTHON_FLOOR, "--generate-hashes"),
            *("--no-emit-index-url", "--no-config", "--custom-compile-command", "make lock"),
            *("--output-file", str(output)),
            *(("--constraint", constraint.name) if constraint else ()),
            *sorted(str(Path(folder, "pyproject.toml")) for folder in wanted),
        ]
        if constraint:
            Path(scratch, constraint.name).write_bytes(constraint.read_bytes())
        subprocess.run(command, cwd=scratch, check=True)  # noqa: S603 - fixed program, no shell
    print(f"{output.relative_to(root)}: {len(pins(output))} packages")  # noqa: T201 - a command line tool


def third_party(requirements: tuple[str, ...], local: dict[str, Distribution]) -> list[str]:
    """Return the requirements that are not packages of this repository."""
    return [requirement for requirement in requirements if requirement_name(requirement) not in local]


def main(root: Path = ROOT) -> None:
    """Write every lock file below `root`."""
    everything = distributions(root)
    local = {distribution.name: distribution for distribution in everything}
    workspace = tomllib.loads((root / "pyproject.toml").read_text())
    wanted = {".": list(workspace["dependency-groups"]["dev"])}
    for distribution in everything:
        asked = distribution.requirements + distribution.build_requirements
        wanted[str(distribution.folder.relative_to(root))] = third_party(asked, local)
    lock = root / "requirements.lock"
    compile_lock(root, wanted, lock, constraint=None)
    building = {"": sorted({need for part in everything for need in part.build_requirements})}
    compile_lock(root, building, root / "build-requirements.lock", constraint=lock)
    for deployable in distributions(root, DEPLOYABLES):
        wanted = {
            str(part.folder.relative_to(root)): third_party(part.requirements, local)
            for part in closure(deployable, local)
        }
        compile_lock(root, wanted, deployable.folder / "requirements.lock", constraint=lock)


if __name__ == "__main__":
    main()
