"""Shows on a stream how far a rebuild is: a bar that moves on a terminal, a line now and then anywhere else."""

import time
from collections.abc import Callable
from typing import TextIO

WIDTH = 30
TERMINAL_EVERY, LINES_EVERY = 0.1, 5.0
"""Seconds between two looks at it."""


class ProgressBar:
    """Shows the progress of one stage after the other."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._moves = stream.isatty()
        self._stage = ""
        self._began = 0.0
        self._done_before = 0
        self._shown_at = float("-inf")
        self._shown = ""
        self._last: tuple[int, int | None] = (0, None)

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Show that `done` of `total` is done, unless the last look is just over; None when nobody knows the total."""
        now = self._clock()
        if stage != self._stage:
            self.end()
            self._stage, self._began, self._done_before = stage, now, done
        if self._shown and (done, total) == self._last:
            return
        if now - self._shown_at < (TERMINAL_EVERY if self._moves else LINES_EVERY) and done != total:
            self._shown = ""
            self._last = (done, total)
            return
        self._show(done, total, now)

    def end(self) -> None:
        """End the stage: what was told last is shown."""
        if self._stage and not self._shown:
            self._show(*self._last, self._clock())
        if self._stage and self._moves:
            self._stream.write("\n")
        self._stage, self._shown = "", ""
        self._shown_at = float("-inf")

    def _show(self, done: int, total: int | None, now: float) -> None:
        took = now - self._began
        rate = f"  {(done - self._done_before) / took:,.0f}/s" if took > 0.5 else ""
        if total is None:
            text = f"{self._stage}: {done:,}{rate}"
        else:
            share = done / total if total else 1.0
            bar = "#" * int(WIDTH * share)
            drawn = f"[{bar:.<{WIDTH}}] " if self._moves else ""
            text = f"{self._stage}: {drawn}{int(100 * share):3d} %  {done:,} of {total:,}{rate}"
        if text != self._shown:
            self._stream.write(f"\r{text}\x1b[K" if self._moves else f"{text}\n")
            self._stream.flush()
        self._shown, self._shown_at, self._last = text, now, (done, total)
