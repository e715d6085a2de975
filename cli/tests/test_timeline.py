"""The line that says how a run stands: each thing once."""

import pytest
from amends_cli import timeline
from amends_cli.output import Styled

from amends.saga.v1 import run_pb2


@pytest.mark.parametrize(
    ("message", "skipped", "shown"),
    [
        ("COMPLETED", 0, "COMPLETED"),
        ("COMPLETED (1 skipped by a person)", 1, "COMPLETED (1 skipped by a person)"),
        ("COMPLETED (2 decided by a person)", 2, "COMPLETED (2 decided by a person)"),
        ("its journal cannot be read here", 0, "COMPLETED: its journal cannot be read here"),
        ("", 0, "COMPLETED"),
        (
            "COMPLETED (1 skipped by a person): somebody asked for it",
            1,
            "COMPLETED (1 skipped by a person): somebody asked for it",
        ),
        ("COMPLETED: the card was [declined]", 0, "COMPLETED: the card was [declined]"),
    ],
)
def test_state_and_skipped_steps_are_said_once(message, skipped, shown):
    run = run_pb2.Run(state=run_pb2.RUN_STATE_COMPLETED, message=message, skipped_by_person=skipped)
    parts = [part.text if isinstance(part, Styled) else part for part in timeline.final_line(run)]
    assert "".join(parts) == shown
