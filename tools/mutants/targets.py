"""The code in which mutants are tried, and the tests that have to notice each. Called by `command`."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ORCHESTRATOR = "services/orchestrator/src/amends_orchestrator"


@dataclass(frozen=True, slots=True)
class Target:
    """Some modules, and the tests that speak for them, quickest first. Paths are relative to the repository."""

    name: str
    code: str
    """A folder or a file."""
    tests: tuple[str, ...]

    @property
    def source(self) -> Path:
        """Return the `src` folder that the modules are imported from."""
        path = ROOT / self.code
        return next(parent for parent in (path, *path.parents) if parent.name == "src")

    def files(self) -> list[Path]:
        """Return the modules, in order."""
        path = ROOT / self.code
        found = [path] if path.is_file() else sorted(path.rglob("*.py"))
        return [file for file in found if file.name != "__init__.py"]


TARGETS = (
    Target(
        "engine",
        "libs/saga/src/amends_saga/engine",
        ("libs/saga/tests/engine", "tests/golden", "libs/saga/tests/test_audit.py", "libs/saga/tests/explore"),
    ),
    Target("barrier", "libs/barrier/src/amends_barrier", ("libs/barrier/tests",)),
    Target("journal", f"{ORCHESTRATOR}/journal", ("services/orchestrator/tests",)),
    Target("runner", f"{ORCHESTRATOR}/runner", ("services/orchestrator/tests",)),
    Target("api", f"{ORCHESTRATOR}/api", ("services/orchestrator/tests",)),
    Target("operator", "operator/src/amends_operator/runs", ("operator", "tests/kubernetes")),
)
