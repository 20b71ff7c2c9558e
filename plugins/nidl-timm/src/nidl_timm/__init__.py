"""timm's image models for nidl: the encoder `timm`, by model name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nidl_timm.encoder import MissingWeights as MissingWeights
    from nidl_timm.encoder import TimmEncoder as TimmEncoder

__all__ = ["MissingWeights", "TimmEncoder"]


def __getattr__(name: str) -> Any:  # PEP 562: importing the package imports neither torch nor timm
    if name in __all__:
        from nidl_timm import encoder

        return getattr(encoder, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
