"""The metadata of every call to a participant. Its names are a contract with every participant.

Called by the runner for each attempt. `amends-fence` is for diagnosis only: no safety rests on it.
"""

from __future__ import annotations

from amends_saga.engine.events import Call

Metadata = tuple[tuple[str, str], ...]

_OPERATION = {
    Call.ACTION: "action",
    Call.COMPENSATION: "compensation",
    Call.VOID: "void",
    Call.VOID_COMPENSATION: "void",
}
_EXTRA: dict[tuple[Call, bool], Metadata] = {
    (Call.ACTION, False): (),
    (Call.ACTION, True): (),
    (Call.COMPENSATION, False): (("amends-action-outcome", "unknown"),),
    (Call.COMPENSATION, True): (("amends-action-outcome", "ok"),),
    (Call.VOID, False): (("amends-void-of", "action"),),
    (Call.VOID, True): (("amends-void-of", "action"),),
    (Call.VOID_COMPENSATION, False): (("amends-void-of", "compensation"),),
    (Call.VOID_COMPENSATION, True): (("amends-void-of", "compensation"),),
}


def call_metadata(run_id: str, step: str, call: Call, key: str, fence: int, *, action_ok: bool) -> Metadata:
    """Return the metadata of one attempt. `action_ok` tells whether the run knows that the action took effect."""
    common = (
        ("amends-run-id", run_id),
        ("amends-step", step),
        ("amends-operation", _OPERATION[call]),
        ("amends-idempotency-key", key),
        ("amends-fence", str(fence)),
    )
    return (*common, *_EXTRA[call, action_ok])
