"""The core's own answers to the hooks; they come through an entry point like anybody else's."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nidl_core.errors import DataError, MissingFile
from nidl_core.hooks import hookimpl

if TYPE_CHECKING:
    from nidl_core.estimator import Estimator


@hookimpl
def nidl_as_dataset(data: Any) -> Any:
    """A path to a `.npy` file is that array, memory-mapped: data larger than memory can be fitted."""
    if not isinstance(data, (str, os.PathLike)) or Path(data).suffix != ".npy":
        return None
    import numpy as np

    try:
        return np.load(data, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise MissingFile(f"there is no file {os.fspath(data)}.") from None
    except (EOFError, OSError, ValueError) as err:
        # numpy's advice to load Python objects all the same is none for a stranger's file.
        reason = "it holds Python objects, or no array" if "pickle" in str(err) else str(err)
        raise DataError(
            f"cannot read {os.fspath(data)}: {reason.rstrip('.')}. A .npy file of numbers is written by "
            "numpy.save(path, array)."
        ) from err


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
