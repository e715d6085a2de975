"""The metadata of every call to a participant. Its names are a contract with every participant.

Called by the runner for each attempt. `amends-fence` is for diagnosis only: no safety rests on it.
"""

from __future__ import annotations

from amends_saga.engine.events import Operation

CallMetadata = tuple[tuple[str, str], ...]

_OPERATION = {
    Operation.ACTION: "action",
    Operation.COMPENSATION: "compensation",
    Operation.VOID: "void",
    Operation.VOID_COMPENSATION: "void",
}
_EXTRA: dict[tuple[Operation, bool], CallMetadata] = {
    (Operation.ACTION, False): (),
    (Operation.ACTION, True): (),
    (Operation.COMPENSATION, False): (("amends-action-outcome", "unknown"),),
    (Operation.COMPENSATION, True): (("amends-action-outcome", "ok"),),
    (Operation.VOID, False): (("amends-void-of", "action"),),
    (Operation.VOID, True): (("amends-void-of", "action"),),
    (Operation.VOID_COMPENSATION, False): (("amends-void-of", "compensation"),),
    (Operation.VOID_COMPENSATION, True): (("amends-void-of", "compensation"),),
}


def call_metadata(run_id: str, step: str, call: Operation, key: str, fence: int, *, action_ok: bool) -> CallMetadata:
    """Return the metadata of one attempt. `action_ok` tells whether the run knows that the action took effect."""
    common = (
        ("amends-run-id", run_id),
        ("amends-step", step),
        ("amends-operation", _OPERATION[call]),
        ("amends-idempotency-key", key),
        ("amends-fence", str(fence)),
    )
    return (*common, *_EXTRA[call, action_ok])
