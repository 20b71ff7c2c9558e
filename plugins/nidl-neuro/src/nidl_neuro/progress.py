"""A bar while scans are read and prepared."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from nidl_neuro.store import Progress


@contextlib.contextmanager
def shown(progress: Progress | bool | None) -> Iterator[Progress | None]:
    """Who is told of the progress: the given one, a bar on stderr, or nobody (None).

    Without an answer (None) there is a bar where stderr is a terminal.
    """
    if callable(progress):
        yield progress
    elif progress or (progress is None and sys.stderr.isatty()):
        with _Bars() as bars:
            yield bars
    else:
        yield None


class _Bars(contextlib.ExitStack):
    """One bar a stage, which says how much the prepared scans take on the disk."""

    def __init__(self) -> None:
        super().__init__()
        self._bars: dict[str, Any] = {}

    def __call__(self, stage: str, done: int, total: int, nbytes: int) -> None:
        from tqdm.auto import tqdm

        if stage not in self._bars:
            self._bars[stage] = self.enter_context(
                tqdm(desc=f"{stage} scans", total=total, unit="scan", leave=stage == "preparing")
            )
        bar = self._bars[stage]
        if nbytes:
            bar.set_postfix_str(f"{nbytes / 2**20:.0f} MiB on disk", refresh=False)
        bar.update(done - bar.n)
