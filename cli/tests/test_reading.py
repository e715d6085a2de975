"""One reader of YAML: whatever one command takes, all take, and what one refuses none takes."""

from pathlib import Path

import pytest
from amends_contracts import descriptor_set
from amends_testkit.answers import ScriptedAnswer

from amends.saga.v1 import definition_service_pb2 as api

POLICY = "apiVersion: amends.dev/v1alpha1\nkind: RetryPolicy\nmetadata: {name: %s%s}\nspec: {attempts: 4}\n"
ONE, TWO = POLICY % ("one", ""), POLICY % ("two", "")
FLOW = (
    '{"apiVersion": "amends.dev/v1alpha1", "kind": "RetryPolicy", "metadata": {"name": "one"}, "spec": {"attempts": 4}}'
)
TAKEN = {
    "empty documents": (f"---\n# a comment\n---\n{ONE}---\n---\n# nothing\n---\n{TWO}---\n", 2),
    "a document on its separator": (f"--- {FLOW}\n", 1),
    "a comment on a separator": (f"--- # first\n{ONE}--- # second\n{TWO}", 2),
    "an end of a document": (f"{ONE}...\n---\n{TWO}...\n", 2),
    "line ends of Windows": ((ONE + "---\n" + TWO).replace("\n", "\r\n"), 2),
    "a byte order mark": ("\ufeff" + ONE, 1),
    "a date that does not exist": (POLICY % ("one", ", annotations: {reviewed: 2026-02-30}"), 1),
    "an integer of four thousand digits": (POLICY % ("one", f", annotations: {{big: {'9' * 4400}}}"), 1),
    "JSON": (FLOW, 1),
}
REFUSED = {
    "deep nesting": POLICY % ("one", f", annotations: {{deep: {'[' * 3000}{']' * 3000}}}"),
    "an alias": "a: &x [1]\nb: *x\n",
    "a tag": "a: !!python/object:os.system x\n",
    "a tab": "kind:\tSaga\n\tname: x\n",
    "a bracket": "kind: [",
    "a control character": "kind: \x01",
}


@pytest.fixture
def commands(amends, orchestrator, tmp_path: Path):
    """Each command that takes files, over a text."""
    orchestrator.script("ApplyRetryPolicy", ScriptedAnswer.ok(api.ApplyRetryPolicyResponse(accepted=True)))
    (tmp_path / "set.binpb").write_bytes(descriptor_set().SerializeToString())

    async def run(text: str):
        (tmp_path / "all.yaml").write_bytes(text.encode())
        return {
            "check": await amends("check", "all.yaml", "--descriptors", "set.binpb"),
            "apply": await amends("apply", "all.yaml"),
            "diff": await amends("diff", "all.yaml"),
            "explore": await amends("explore", "all.yaml", "--descriptors", "set.binpb"),
        }

    return run


@pytest.mark.parametrize(("text", "count"), TAKEN.values(), ids=TAKEN)
async def test_what_one_command_takes_all_take(commands, orchestrator, text: str, count: int) -> None:
    results = await commands(text)
    assert {name: result.code for name, result in results.items() if name != "explore"} == dict.fromkeys(
        ("check", "apply", "diff"), 0
    ), results
    assert "there is no saga" in results["explore"].err
    sent = [call.request.manifest.text for call in orchestrator.calls("ApplyRetryPolicy")]
    assert len(sent) == count
    assert all(text.count("RetryPolicy") == 1 for text in sent)


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
async def test_what_one_command_refuses_none_takes(commands, orchestrator, text: str) -> None:
    results = await commands(text)
    assert {name: result.code for name, result in results.items()} == {"check": 1, "apply": 1, "diff": 1, "explore": 2}
    assert orchestrator.calls("ApplyRetryPolicy") == []
    first = {result.out.splitlines()[0] for result in results.values()}
    assert len(first) == 1, first
