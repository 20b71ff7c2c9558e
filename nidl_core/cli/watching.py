"""What `nidl fit` adds to a fit, as a hook plugin of the session: its files, and lines of progress."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from nidl_core.cli.progress import Progress
from nidl_core.cli.unfinished import METRICS, MODEL, SPEC
from nidl_core.hooks import hookimpl


class Watch:
    """Answers the hooks of one fit; `began` says whether its training did.

    Nothing is written before it does, so that data that are refused leave no trace.
    """

    def __init__(self, folder: Path, spec: str) -> None:
        self.began = False
        self._folder, self._spec = folder, spec

    def begin(self) -> None:
        """Write the spec to the folder, in the place of all that an earlier attempt left."""
        self.began = True
        self._folder.mkdir(parents=True, exist_ok=True)
        for name in (MODEL, METRICS):
            (self._folder / name).unlink(missing_ok=True)
        (self._folder / SPEC).write_text(self._spec, encoding="utf-8")

    def ensure_begun(self) -> None:
        """For a fit that has ended: no epoch was asked for, or other processes began in our stead."""
        path = self._folder / SPEC
        if not path.exists() or path.read_text(encoding="utf-8") != self._spec:
            self.begin()

    @hookimpl
    def nidl_fit_loggers(self, estimator: Any) -> Any:
        """A logger that keeps the figures."""
        return [MetricsFile(self._folder)]

    @hookimpl
    def nidl_fit_callbacks(self, estimator: Any) -> Any:
        """Lines of progress, where Lightning shows no bar and nobody has asked for quiet."""
        lines = not sys.stdout.isatty() and "enable_progress_bar" not in estimator.get_params()
        return [_Began(self), *([EpochLines()] if lines else [])]


class _Began(Callback):
    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._watch.begin()


class EpochLines(Callback):
    """`epoch 3/20, train/loss 12.3 (...)` on stderr, at a rate that suits the length of the fit."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        total = trainer.max_epochs
        self._progress = Progress("epoch", total if total and total > 0 else None)

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        found = sorted(trainer.callback_metrics.items())
        note = ", ".join(f"{k} {float(v):.5g}" for k, v in found if k.endswith("/loss"))
        self._progress.step(trainer.current_epoch + 1, note)


class MetricsFile(Logger):
    """The logged figures in a CSV file, a row an epoch: always whole, whatever ends the fit."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._columns: list[str] = []
        self._rows: list[dict[str, Any]] = []
        self._last = 0  # where the last row begins in the file

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        """Where checkpoints go as well, if the spec asks for them."""
        return str(self._folder)

    @rank_zero_only
    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Nothing: they stand in spec.json."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add to the row of `metrics["epoch"]`: training and validation come one after the other."""
        row = {**metrics, "epoch": int(metrics.get("epoch", len(self._rows)))}
        fresh = not self._rows or self._rows[-1]["epoch"] != row["epoch"]
        if fresh:
            self._rows.append({})
        self._rows[-1].update(row)
        if new := {*row} - {*self._columns}:
            self._columns = ["epoch", *sorted({*self._columns, *new} - {"epoch"})]
            self._write_all()
        else:
            self._write_last(fresh=fresh)

    def _write_all(self) -> None:
        *before, last = self._rows
        head = self._text([dict(zip(self._columns, self._columns, strict=True)), *before])
        with self._path.open("w", encoding="utf-8", newline="") as file:
            file.write(head)
            self._last = file.tell()
            file.write(self._text([last]))

    def _write_last(self, *, fresh: bool) -> None:
        with self._path.open("r+", encoding="utf-8", newline="") as file:
            self._last = file.seek(0, io.SEEK_END) if fresh else file.seek(self._last)
            file.truncate()
            file.write(self._text(self._rows[-1:]))

    def _text(self, rows: list[dict[str, Any]]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self._columns, lineterminator="\n").writerows(rows)
        return text.getvalue()

    @property
    def _path(self) -> Path:
        return self._folder / METRICS
