"""`amends explore`: what it prints, replays and exits with."""

import json
from pathlib import Path

import pytest
from amends_contracts import descriptor_set

EXAMPLE = Path(__file__).parents[2] / "examples" / "place-order"
NOTES = """\
syntax = "proto3";
package notes.v1;
message Note { string text = 1; }
service Notes { rpc Write(Note) returns (Note); rpc Erase(Note) returns (Note); }
"""
SAGA = """\
apiVersion: amends.dev/v1alpha1
kind: Participant
metadata: {name: notes, namespace: shop}
spec:
  service: notes.v1.Notes
  target: "127.0.0.1:1"
  methods: [{name: Write}, {name: Erase, idempotency: IDEMPOTENT}]
  callers: [shop]
---
apiVersion: amends.dev/v1alpha1
kind: Saga
metadata: {name: note, namespace: shop}
spec:
  input: {text: string}
  deadline: 60s
  steps:
    - name: write
      call: notes.v1.Notes/Write
      request: "Note{text: input.text}"
      compensate: {call: notes.v1.Notes/Erase, request: "Note{text: input.text}"}
"""


@pytest.fixture
def notes(tmp_path: Path) -> tuple[str, ...]:
    """A saga over a service that promises nothing, and its contract."""
    (tmp_path / "protos").mkdir()
    (tmp_path / "protos" / "notes.proto").write_text(NOTES)
    (tmp_path / "saga.yaml").write_text(SAGA)
    return ("saga.yaml", "--protos", "protos")


async def test_a_saga_that_holds_is_shown_with_its_states_bounds_and_ends(run, notes) -> None:
    result = await run("explore", *notes)
    assert result.code == 0
    assert result.out.startswith("shop/note\n")
    assert "bounds: attempts 2, owners 2, crashes 2, resolutions 1" in result.out
    assert "COMPLETED" in result.out
    assert result.out.endswith("holds: no invariant is broken within these bounds\n")


async def test_limits_of_plain_steps_are_shown_and_break_nothing(run, notes) -> None:
    result = await run("explore", *notes)
    assert "not promised for plain steps" in result.out
    assert "write  once  effect twice" in result.out


async def test_a_violation_is_told_as_a_timeline_whose_seed_replays_it(run, notes) -> None:
    rough = ("--bound", "owners=1", "--bound", "plain_duplicates=yes")
    result = await run("explore", *notes, *rough)
    assert result.code == 1
    assert "effect twice (write), after 4 moves:" in result.out
    assert "   4  wire     late write: has its effect, ok\n" in result.out
    seed = result.out.partition("--seed ")[2].split()[0]
    again = await run("explore", *notes, *rough, "--seed", seed)
    assert again.code == 1
    assert "   4  wire     late write: has its effect, ok\n   5  broken   effect twice\n" in again.out


async def test_an_exploration_that_was_cut_off_fails_and_says_so(run, notes) -> None:
    result = await run("explore", *notes, "--bound", "states=20")
    assert result.code == 1
    assert "not all was seen: stopped after 20 states" in result.out
    assert "no end was seen" in result.err


async def test_json_has_everything(run, notes) -> None:
    result = await run("explore", *notes, "-o", "json", "--bound", "owners=1")
    (seen,) = json.loads(result.out)
    assert seen["holds"] is True
    assert seen["saga"] == "note"
    assert seen["states"] > 100
    assert seen["bounds"]["owners"] == 1
    assert {limit["text"] for limit in seen["limits"]} >= {"effect twice"}


async def test_a_guarded_saga_has_no_limits(run, tmp_path: Path) -> None:
    (tmp_path / "set.binpb").write_bytes(descriptor_set().SerializeToString())
    few = ("--bound", "owners=1", "--bound", "crashes=0", "--bound", "resolutions=0")
    result = await run("explore", str(EXAMPLE), "--descriptors", "set.binpb", *few)
    assert result.code == 0
    assert "shop/place-order" in result.out
    assert "limits" not in result.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--bound", "atempts=3"), "there is no bound 'atempts'"),
        (("--bound", "attempts=x"), "attempts is a whole number of at least 1"),
        (("--saga", "other"), "there is no saga 'other'"),
        (("--seed", "111:0"), "the seed belongs to a saga with another number of steps"),
        (("--seed", "1:99"), "the seed has no move 99 here"),
    ],
)
async def test_wrong_use_is_told_apart_from_a_violation(run, notes, arguments, said) -> None:
    result = await run("explore", *notes, *arguments)
    assert result.code == 2
    assert said in result.err


async def test_without_contracts_it_says_how_to_name_them(run, notes) -> None:
    result = await run("explore", "saga.yaml", "--address", "127.0.0.1:1")  # where nobody is, whatever runs here
    assert result.code == 1
    assert "--descriptors" in result.err


async def test_a_saga_with_errors_is_not_explored(run, notes, tmp_path: Path) -> None:
    (tmp_path / "saga.yaml").write_text(SAGA.replace("text: input.text", "text: input.txt", 1))
    result = await run("explore", *notes)
    assert result.code == 2
    assert "error AM" in result.out
