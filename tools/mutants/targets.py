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
    own: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """The tests that are first asked about a module, by its name."""
    first: tuple[str, ...] = ()
    """The tests that are first asked about a module that has none of its own."""

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

    def tests_of(self, file: Path) -> tuple[str, ...]:
        """Return the tests that are first asked about a module."""
        return dict(self.own).get(file.stem, self.first or self.tests)


SERVICE = "services/orchestrator/tests"
CONFORMANCE = "simulation/tests/test_conformance.py"


def _own(**modules: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the tests of each module; a name without a folder is a file among the orchestrator's tests."""
    return tuple(
        (module, tuple(test if "/" in test else f"{SERVICE}/test_{test}.py" for test in tests.split()))
        for module, tests in modules.items()
    )


JOURNAL = _own(
    batch=f"writer {CONFORMANCE}",
    claims=f"claims takeover {CONFORMANCE}",
    connection="writer",
    counts="claims",
    decisions=f"people answers {CONFORMANCE}",
    ids="writer partitions",
    leases=f"takeover heartbeat {CONFORMANCE}",
    partitions="partitions",
    reader=f"takeover {CONFORMANCE} start people",
    records="writer start",
    recovery="writer",
    requests="answers people",
    statements=f"writer takeover {CONFORMANCE}",
    tail="writer",
    writer="writer",
)
RUNNER = _own(
    claimer="recovery start answers",
    fleet="runs start keys recovery held answers load",
    heartbeat="heartbeat recovery",
    host="runs keys recovery",
    live="runs held load recovery people answers",
    resolution="people answers",
    starts="start keys runs",
    summary="people held runs",
    request_server="answers people recovery",
)
API = _own(
    request_checks="start answers hostile people",
    convert="runs people answers start",
    run_decisions="people answers unreadable",
    definitions="definitions routes hostile",
    definition_messages="runs people answers",
    payloads="payloads answers people",
    run_queries="runs start people answers unreadable",
    runs="runs start people answers hostile",
    start_run="start runs keys answers hostile load unreadable",
    views="runs start people answers unreadable",
    long_poll="start answers",
    watched_runs="answers runs",
)

TARGETS = (
    Target(
        "engine",
        "libs/saga/src/amends_saga/engine",
        ("libs/saga/tests/engine", "tests/golden", "libs/saga/tests/test_audit.py", "libs/saga/tests/explore"),
        first=("libs/saga/tests/engine", "tests/golden"),
    ),
    Target("barrier", "libs/barrier/src/amends_barrier", ("libs/barrier/tests",)),
    Target("journal", f"{ORCHESTRATOR}/journal", (CONFORMANCE, SERVICE), JOURNAL),
    Target("runner", f"{ORCHESTRATOR}/runner", (SERVICE,), RUNNER),
    Target("api", f"{ORCHESTRATOR}/api", (SERVICE,), API),
    Target("operator", "operator/src/amends_operator/runs", ("operator", "tests/kubernetes"), first=("operator",)),
    Target(
        "simulation", "simulation/src/amends_simulation/database.py", (CONFORMANCE, "simulation/tests/test_seeds.py")
    ),
)
