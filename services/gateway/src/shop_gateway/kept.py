"""Answers that are the same for everybody, kept for as long as they say (`cache-control: public, max-age`).

It is a shared cache as RFC 9111 has it, in this process: who does not want it says `cache-control: no-cache`. What was
degraded is never kept. Called by `operation`.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MOST = 1_024
LARGEST = 64 * 1024
"""Bytes of a body that is kept."""
_PUBLIC = "public, max-age="


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """The answer to a request, and when it was made."""

    body: bytes
    etag: str
    keep: str
    at: float


class KeptAnswers:
    """The answers that this process keeps; those that were used longest ago make room."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Measure ages by a clock of seconds."""
        self._clock = clock
        self._answers: OrderedDict[str, KeptAnswer] = OrderedDict()

    def find(self, address: str) -> tuple[KeptAnswer, int] | None:
        """Return the answer for an address and its age in seconds; None when there is none that is fresh."""
        found = self._answers.get(address)
        if found is None:
            return None
        age = self._clock() - found.at
        if age >= int(found.keep.removeprefix(_PUBLIC)):
            del self._answers[address]
            return None
        self._answers.move_to_end(address)
        return found, int(age)

    def keep(self, address: str, body: bytes, etag: str, keep: str) -> None:
        """Keep an answer, if `keep` (its `cache-control`) says that anybody may."""
        if not keep.startswith(_PUBLIC) or len(body) > LARGEST:
            return
        self._answers[address] = KeptAnswer(body, etag, keep, self._clock())
        if len(self._answers) > MOST:
            self._answers.popitem(last=False)
