"""The reference pages say what the code does: tables of reasons, states and defaults are compared with their source."""

import ast
import re
from datetime import timedelta

import pytest
from amends_barrier.protocol import Reason
from amends_chassis.errors import DomainError
from amends_chassis.settings import ServiceSettings
from amends_monitor.settings import Settings as MonitorSettings
from amends_orchestrator.settings import Settings
from amends_resilience import RetryPolicy
from amends_resilience.durations import format_duration
from amends_saga.engine.events import ParkReason

from amends.saga.v1 import run_pb2

PROMISES = "docs/explanation/guarantees.md"
SHOWN = re.compile(r'\[([^\]]+)\]\((\S+\.py) "(test_\w+)"\)')


def test_every_row_of_promises_and_every_part_that_promises_has_a_test(root):
    """That the named tests are there is asked of all documents, see test_repository."""
    text = (root / PROMISES).read_text()
    rows = [line for line in text.splitlines() if re.match(r"\| \d+ \|", line)]
    assert len(rows) == 9 + 5 + 6
    assert [row for row in rows if not SHOWN.search(row)] == []
    parts = dict(part.split("\n", 1) for part in text.split("\n## ")[1:])
    without = {"The problem in one picture", "Words"}
    assert {title for title, part in parts.items() if not SHOWN.search(part)} == without


def first_column(root, page, heading):
    """The names in the first column of the table under a heading."""
    section = (root / page).read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `?([A-Z][A-Z_]+)`? \|", section, re.MULTILINE))


def test_every_reason_to_park_is_explained(root):
    assert first_column(root, "docs/reference/statuses.md", "Why a run is parked") == {str(r) for r in ParkReason}


def test_every_state_of_a_run_is_explained(root):
    states = {name.removeprefix("RUN_STATE_") for name in run_pb2.RunState.keys()} - {"UNSPECIFIED"}  # noqa: SIM118
    assert first_column(root, "docs/reference/statuses.md", "States of a run") == states


def test_every_refusal_of_the_barrier_is_explained(root):
    assert first_column(root, "docs/reference/barrier.md", "Reasons") == {str(reason) for reason in Reason}


def test_the_defaults_of_a_retry_policy_are_those_of_the_code(root):
    page = (root / "docs/reference/retry-policy.md").read_text()
    rows = {match[1]: match[2] for match in re.finditer(r"^\| `([a-zA-Z.]+)`[^|]*\| ([^|]+) \|", page, re.MULTILINE)}
    default = RetryPolicy()
    assert rows["timeout"] == f"`{default.timeout.total_seconds():.0f}s`"
    assert rows["attempts"] == f"`{default.attempts}`"
    assert set(rows["retryOn"].split(", ")) == default.retry_on
    assert rows["budget.ratio"] == f"`{default.budget.ratio}`, `{default.budget.min_per_second}`"
    assert rows["bulkhead.maxConcurrent"] == f"`{default.bulkhead.max_concurrent}`, `{default.bulkhead.max_queued}`"
    breaker = default.circuit_breaker
    assert rows["circuitBreaker.failureRatio"] == (
        f"`{breaker.failure_ratio}`, `{breaker.minimum_calls}`, "
        f"`{breaker.window.total_seconds():.0f}s`, `{breaker.open_for.total_seconds():.0f}s`"
    )
    backoff = default.backoff
    assert rows["backoff.initial"] == (
        f"`{backoff.initial.total_seconds() * 1000:.0f}ms`, `{backoff.maximum.total_seconds():.0f}s`, "
        f"`{backoff.multiplier:.0f}`"
    )


def reasons_in(source: str) -> set[str]:
    """The reasons that a module gives to conditions and events: literals, which is how all but a few are given."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Condition":
            found |= {str(arg.value) for arg in node.args[2:3] if isinstance(arg, ast.Constant)}
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "WriteEvent":
            found |= {str(arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant)}
    return found


def test_every_reason_of_a_condition_or_event_is_explained(root):
    from amends_operator.definitions.choreography import ChoreographyReconciler
    from amends_operator.definitions.findings import REASONS
    from amends_operator.kube.statuses import AWAY
    from amends_operator.runs.view import PHASES

    sources = [path.read_text() for path in (root / "operator" / "src").rglob("*.py")]
    given = {
        AWAY,
        ChoreographyReconciler.away,
        "CheckFailed",
        "TargetRefused",
        "ContractChanged",
        "SpecInvalid",
        "InputInvalid",
    }
    given |= set(REASONS.values()) | set(PHASES.values())
    given |= {reason for source in sources for reason in reasons_in(source)}
    page = (root / "docs/reference/statuses.md").read_text().split("## Reasons of conditions\n")[1]
    explained = set(re.findall(r"`([A-Z][A-Za-z]+)`", page)) - {"RetryPolicies"}
    assert given - explained == set()
    assert explained - given == {"SagaUnknown", "SagaNotReady"}  # the orchestrator's own reasons, written so


DOMAIN_ERRORS = "|".join(kind.__name__ for kind in DomainError.__subclasses__())
REFUSING = re.compile(
    rf"{DOMAIN_ERRORS}|ResolutionRefusedError|RequestReply|CallRefusal|DecisionRefusal|DecisionError|_dependency"
)
REASON = re.compile(r"[A-Z]+(_[A-Z]+)*")


def refusals_in(source: str) -> set[str]:
    """The reasons that a module refuses with: the first words in capitals that such calls are given."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    refusing = [call for call in calls if REFUSING.fullmatch(getattr(call.func, "id", ""))]
    given = [str(arg.value) for call in refusing for arg in call.args[:2] if isinstance(arg, ast.Constant)]
    return {text for text in given if REASON.fullmatch(text)}


def test_every_reason_of_the_api_is_explained(root):
    folders = ("services/orchestrator/src/amends_orchestrator", "libs/chassis/src", "libs/events/src")
    sources = [path.read_text() for folder in folders for path in (root / folder).rglob("*.py")]
    given = set[str]().union(*(refusals_in(source) for source in sources))
    judged = (root / "libs/saga/src/amends_saga/engine/resolve.py").read_text()
    given |= set(re.findall(r'"([A-Z]+_(?:UNKNOWN|REQUIRED|ALLOWED))"', judged))
    page = (root / "docs/reference/statuses.md").read_text()
    section = page.split("## Reasons of the API\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*) \| [A-Z_, ]+ \|", section, re.MULTILINE)
    assert {reason for row in rows for reason in re.findall(r"`(\w+)`", row)} == given


def shown_default(value: object) -> str | None:
    """How a setting's default is written on the page; None where words stand for it."""
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float | str) else None


SETTINGS = [("The orchestrator", Settings), ("The monitor", MonitorSettings), ("Every service", ServiceSettings)]


@pytest.mark.parametrize(("heading", "kind"), SETTINGS)
def test_every_setting_is_explained_with_its_default(root, heading, kind):
    section = (root / "docs/reference/settings.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `AMENDS_([A-Z_]+)` \| ([^|]+) \|", section, re.MULTILINE))
    common = ServiceSettings.model_fields
    fields = {
        name: field
        for name, field in kind.model_fields.items()
        if kind is ServiceSettings or name not in common or (field.default != common[name].default and name != "name")
    }
    assert set(rows) == {name.upper() for name in fields}
    for name, field in fields.items():
        default = shown_default(field.default)
        assert default is None or rows[name.upper()] == f"`{default}`", name


def test_every_file_that_the_page_of_the_architecture_names_is_there(root):
    page = root / "docs/explanation/architecture.md"
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    assert len(links) > 80
    assert [link for link in links if not link.startswith("http") and not (page.parent / link).exists()] == []


def test_every_way_that_an_answer_is_written_is_a_class_where_the_page_says(root):
    text = (root / "docs/explanation/architecture.md").read_text()
    rows = re.findall(r"^\| (`[^|]*) \| `([^`|]+\.(?:py|proto))` \|", text, re.MULTILINE)
    short = {"orchestrator/": "services/orchestrator/src/amends_orchestrator/", "saga/": "libs/saga/src/amends_saga/"}
    assert rows
    for names, path in rows:
        for prefix, full in short.items():
            path = path.replace(prefix, full, 1) if path.startswith(prefix) else path
        source = (root / path).read_text()
        assert [
            name for name in re.findall(r"`(\w+)`", names) if not re.search(rf"(class|message) {name}\b", source)
        ] == []
