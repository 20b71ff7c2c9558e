"""nidl: deep generative models for (neuro)imaging, assembled by name.

Importing this package imports neither torch nor lightning, scikit-learn or numpy: each public name
is fetched from its module at first use (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nidl_core.assembly import build as build
    from nidl_core.errors import NidlError as NidlError
    from nidl_core.estimator import Estimator as Estimator
    from nidl_core.estimator import TransformerMixin as TransformerMixin
    from nidl_core.interfaces import Decoder as Decoder
    from nidl_core.interfaces import Encoder as Encoder
    from nidl_core.interfaces import Likelihood as Likelihood
    from nidl_core.interfaces import Loss as Loss
    from nidl_core.registry import available as available
    from nidl_core.registry import decoders as decoders
    from nidl_core.registry import encoders as encoders
    from nidl_core.registry import estimators as estimators
    from nidl_core.registry import likelihoods as likelihoods
    from nidl_core.registry import losses as losses
    from nidl_core.saving import load as load
    from nidl_core.saving import save as save

_HOME = {
    "NidlError": "errors",
    "Decoder": "interfaces",
    "Encoder": "interfaces",
    "Likelihood": "interfaces",
    "Loss": "interfaces",
    "Estimator": "estimator",
    "TransformerMixin": "estimator",
    "available": "registry",
    "build": "assembly",
    "decoders": "registry",
    "encoders": "registry",
    "estimators": "registry",
    "likelihoods": "registry",
    "load": "saving",
    "losses": "registry",
    "save": "saving",
}

__all__ = [  # noqa: PLE0604 (the names are those of _HOME, and two more)
    *_HOME,
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("nidl-core")
    if name in _HOME:
        value = getattr(importlib.import_module(f"nidl_core.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'nidl_core' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
