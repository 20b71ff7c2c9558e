"""The VAE estimator and the beta-VAE loss of nidl.

Both are fetched at first use (PEP 562), so that nidl's hooks are found without importing torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nidl_vae.loss import BetaVAELoss as BetaVAELoss
    from nidl_vae.vae import VAE as VAE

__all__ = ["VAE", "BetaVAELoss"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(
            importlib.import_module(f"nidl_vae.{'vae' if name == 'VAE' else 'loss'}"), name
        )
    raise AttributeError(f"module 'nidl_vae' has no attribute {name!r}")
