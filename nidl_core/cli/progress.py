"""How far a long job is: lines on stderr, at a rate that suits its length."""

from __future__ import annotations

import sys
import time
from datetime import timedelta

_SECONDS = 1.0  # between two lines, at least
_SHARE = 0.02  # and of the time so far: a day's work gets some hundred lines


class Progress:
    """`epoch 3/20, train/loss 12.3 (0:00:05 elapsed, 0:00:28 to go)`, for things counted from 1.

    The first and the last step have their line; `total` may be unknown (None).
    """

    def __init__(self, what: str, total: int | None) -> None:
        self._what = what
        self._total = total
        self._start = self._next = time.monotonic()

    def step(self, done: int, note: str = "") -> None:
        """Say that `done` of `total` are done, unless it was said a moment ago."""
        now = time.monotonic()
        if now < self._next and done != self._total:
            return
        elapsed = now - self._start
        self._next = now + max(_SECONDS, _SHARE * elapsed)
        of = f"{done}" if self._total is None else f"{done}/{self._total}"
        times = f"{_clock(elapsed)} elapsed"
        if self._total is not None and done < self._total:
            times += f", {_clock(elapsed / done * (self._total - done))} to go"
        print(f"{self._what} {of}{note and ', '}{note} ({times})", file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
