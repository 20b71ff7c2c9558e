"""What this plugin answers to nidl's hooks: scans as data. Imports nothing heavy."""

from __future__ import annotations

import os
from typing import Any

from nidl_core.hooks import hookimpl

_OTHERS = (".npy", ".npz", ".pt", ".h5", ".nidl")  # files that are no scans: no need to look


@hookimpl
def nidl_as_dataset(data: Any, spec: Any) -> Any:
    """Paths, globs, folders, images and tables of scans, prepared as those of the fit."""
    if isinstance(data, (str, os.PathLike)) and str(data).lower().endswith(_OTHERS):
        return None
    from nidl_neuro.reading import is_source

    if not is_source(data):
        return None
    from nidl_neuro.data import scans

    return scans(data, spec)
