"""Who writes what `nidl transform`, `reconstruct` and `sample` give, where it is no `.npy` file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from nidl_core.errors import DataError
from nidl_neuro.data import Scans, prepared_affine
from nidl_neuro.decoding import posterior
from nidl_neuro.maps import write_maps
from nidl_neuro.outputs import check_table, write_latents
from nidl_neuro.replacing import check_free
from nidl_neuro.traversal import write_volumes


class LatentsTable:
    """`nidl transform ... --out latents.tsv`: a row a scan, with its identifiers."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._overwrite = False

    def check(self, *, overwrite: bool) -> None:
        """Raise `DataError` if something is there, and not to be replaced."""
        self._overwrite = overwrite
        check_table(self.out, overwrite=overwrite)

    def write(self, model: Any, data: Any, rows: int | None, pieces: Iterable[Any]) -> str:
        """Write the latents; the files and how many rows.

        Of a model with a posterior: its mean and standard deviation, so that the pieces, which may be
        draws from it, are not needed.
        """
        scans = _scans(data, self.out)
        if hasattr(model, "encode"):
            latents, sd = posterior(model, scans)
        else:
            latents, sd = np.concatenate([np.asarray(piece) for piece in pieces]), None
        write_latents(self.out, scans, latents, sd, overwrite=self._overwrite)
        return f"{self.out} and {self.out.with_suffix('.json').name}, {len(latents)} scans"


class ImageFolder:
    """`nidl reconstruct ... --out folder/`: an image a scan, on the scan's own grid."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._overwrite = False

    def check(self, *, overwrite: bool) -> None:
        """Raise `DataError` if the folder cannot be one."""
        self._overwrite = overwrite
        if self.out.is_file():
            raise DataError(f"cannot write images into {self.out}: it is a file. Name a folder.")

    def write(self, model: Any, data: Any, rows: int | None, pieces: Iterable[Any]) -> str:
        """Write the images; how many. The pieces are not needed: the model is asked again."""
        paths = write_maps(
            model,
            _scans(data, self.out),
            self.out,
            kinds=("reconstruction",),
            overwrite=self._overwrite,
        )
        return f"{len(paths['reconstruction'])} images in {self.out}"


class Volumes:
    """`nidl sample ... --out samples.nii.gz`: one 4-D image on the prepared grid."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._overwrite = False

    def check(self, *, overwrite: bool) -> None:
        """Raise `DataError` if something is there, and not to be replaced."""
        self._overwrite = overwrite
        check_free([self.out], overwrite=overwrite)

    def write(self, model: Any, data: Any, rows: int | None, pieces: Iterable[Any]) -> str:
        """Write the volumes; the file and its shape."""
        volumes = np.concatenate([np.asarray(piece) for piece in pieces])
        write_volumes(self.out, volumes, prepared_affine(model), overwrite=self._overwrite)
        shape = (*volumes.shape[2:], len(volumes))
        return f"{self.out} {shape}, in prepared units"


def _scans(data: Any, out: Path) -> Scans:
    if not isinstance(data, Scans):
        raise DataError(f"{out} is for scans, and the data are none. Write a .npy file instead.")
    return data
