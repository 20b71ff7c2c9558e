"""A callback that keeps the logged figures of each epoch in `estimator.history_`."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class History(Callback):
    """One row an epoch: {"epoch": 0, "train/loss": ..., "val/loss": ...}, all plain numbers.

    An epoch without validation has no "val/..." figures. The rows travel in checkpoints, so that a resumed fit ends with the whole history.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._validated = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.history_ = self.rows  # type: ignore[assignment]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        figures = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if self._validated or not name.startswith("val")
        }
        self.rows.append({"epoch": trainer.current_epoch, **figures})

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]
