"""What the suites of the CLI share: a scripted orchestrator, and the command line run as a function."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
import structlog
from amends_cli.main import main
from amends_contracts import descriptor_set
from amends_testkit.participant import FakeParticipant


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Amends = Callable[..., Awaitable[Result]]


@pytest.fixture
async def orchestrator() -> AsyncIterator[FakeParticipant]:
    services = [
        "amends.saga.v1.RunService",
        "amends.saga.v1.DefinitionService",
        "amends.events.v1.WebhookService",
    ]
    async with await FakeParticipant.start(descriptor_set(), services) as server:
        yield server


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path) -> Amends:
    """Runs `amends` with arguments, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    # What servers of other suites in this process say goes anywhere but into what a command prints.
    structlog.configure(logger_factory=structlog.stdlib.LoggerFactory())
    monkeypatch.delenv("AMENDS_ADDRESS", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))  # or an `amends dev` of this machine would be found

    async def amends(*arguments: str) -> Result:
        def call() -> int:
            try:
                main(list(arguments))
            except SystemExit as end:
                return int(end.code or 0)
            return 0

        code = await asyncio.to_thread(call)
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return amends


@pytest.fixture
def amends(run: Amends, orchestrator: FakeParticipant, monkeypatch: pytest.MonkeyPatch) -> Amends:
    """The same, with the scripted orchestrator in AMENDS_ADDRESS."""
    monkeypatch.setenv("AMENDS_ADDRESS", orchestrator.target)
    return run
