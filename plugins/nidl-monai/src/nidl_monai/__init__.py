"""MONAI's networks for nidl: the encoder `monai` and the decoder `monai`, each by model name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nidl_monai.decoder import MonaiDecoder
    from nidl_monai.encoder import MonaiEncoder

__all__ = ["MonaiDecoder", "MonaiEncoder"]

_MODULES = {"MonaiDecoder": "nidl_monai.decoder", "MonaiEncoder": "nidl_monai.encoder"}


def __getattr__(name: str) -> Any:  # PEP 562: importing the package does not import torch
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
