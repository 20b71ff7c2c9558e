"""Whole fits on a backend: the arguments of Lightning's Trainer that it stands for."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback
from torch import nn

from nidl_core.interfaces import Decoder, Encoder
from nidl_core.testing.backends import Backend, compiler


def trainer_arguments(backend: Backend) -> dict[str, Any]:
    """What an estimator is to hand to its Trainer, to be trained on the backend in one process."""
    arguments: dict[str, Any] = {"accelerator": backend.device}
    if backend.name == "bf16":
        arguments["precision"] = "bf16-mixed"
    if how := compiler(backend.name):
        arguments["callbacks"] = [Compiling(how)]
    return arguments


class Compiling(Callback):
    """Compile an estimator's networks in place, once a fit has built them.

    Those are its encoders and decoders, or, where it has none of them, all its parts.
    """

    def __init__(self, how: str) -> None:
        self.how = how

    def on_fit_start(self, trainer: Any, pl_module: nn.Module) -> None:
        parts = list(pl_module.children())
        networks = [part for part in parts if isinstance(part, (Encoder, Decoder))]
        for part in networks or parts:
            part.compile(backend=self.how)
