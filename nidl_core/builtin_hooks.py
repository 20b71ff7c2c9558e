"""The core's own answers to the hooks; they come through an entry point like anybody else's."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nidl_core.hooks import hookimpl

if TYPE_CHECKING:
    from nidl_core.estimator import Estimator


@hookimpl(trylast=True)
def nidl_as_dataset(data: Any) -> Any:
    """A path to a `.npy` file is that array, memory-mapped: data larger than memory can be fitted."""
    if isinstance(data, (str, os.PathLike)) and Path(data).suffix == ".npy":
        import numpy as np

        return np.load(data, mmap_mode="r", allow_pickle=False)
    return None


@hookimpl
def nidl_fit_callbacks(estimator: Estimator) -> Any:
    """Keep what was logged, one row an epoch, in `estimator.history_`."""
    from nidl_core.history import History

    return [History()]


@hookimpl
def nidl_model_facts(estimator: Estimator) -> Any:
    """The versions that the model was made with."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "lightning", "scikit-learn", "numpy")},
    }
