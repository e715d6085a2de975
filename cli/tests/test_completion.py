"""Completion of names: what the shell asks for is asked of the orchestrator, and nothing is suggested without one."""

import io
from contextlib import redirect_stdout

import pytest
from amends_testkit.answers import ScriptedAnswer

from amends.saga.v1 import definition_service_pb2 as definitions
from amends.saga.v1 import run_pb2
from amends.saga.v1 import run_service_pb2 as api

RUN = "01a22d41-603d-7db1-bceb-d43a90b463ba"


@pytest.fixture
def complete(amends, monkeypatch: pytest.MonkeyPatch):
    """Return what bash suggests for the last of the words."""

    async def suggested(*words: str) -> list[str]:
        monkeypatch.setenv("_AMENDS_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", " ".join(("amends", *words)))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        shown = io.StringIO()
        with redirect_stdout(shown):
            result = await amends()
        names: list[str] = (shown.getvalue() + result.out).split()
        return names

    return suggested


@pytest.fixture
def known(orchestrator) -> None:
    sagas = [definitions.SagaInfo(namespace="shop", name=name) for name in ("pay", "pack", "ship")]
    orchestrator.script("ListSagas", ScriptedAnswer.ok(definitions.ListSagasResponse(sagas=sagas)))
    participant = definitions.ParticipantInfo(namespace="bank", name="payments")
    orchestrator.script(
        "ListParticipants", ScriptedAnswer.ok(definitions.ListParticipantsResponse(participants=[participant]))
    )
    orchestrator.script("ListRuns", ScriptedAnswer.ok(api.ListRunsResponse(runs=[run_pb2.Run(run_id=RUN)])))


@pytest.mark.parametrize(
    ("words", "suggestions"),
    [
        (("start", "pa"), ["pay", "pack"]),
        (("start", "x"), []),
        (("watch", "01a"), [RUN]),
        (("get", "saga/p"), ["saga/pay", "saga/pack"]),
        (("get", "participant/"), ["participant/payments"]),
        (("get", "0"), [RUN]),
        (("list", "-n", ""), ["bank", "shop"]),
    ],
)
async def test_names_are_completed_from_what_is_there(complete, known, words, suggestions) -> None:
    assert sorted(await complete(*words)) == sorted(suggestions)


async def test_without_an_orchestrator_nothing_is_suggested_or_said(complete, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMENDS_ADDRESS", "127.0.0.1:9")
    assert await complete("start", "p") == []
