"""Maps of each scan on its own grid: what a model makes of it, what is left over, and how unusual that is.

S the prepared grid, M the voxels that count for the model.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray

from nidl_core.errors import DataError, InvalidParameter
from nidl_neuro.cohort import Scan
from nidl_neuro.data import Scans
from nidl_neuro.decoding import Decoded, as_scans, counted, decoded
from nidl_neuro.norms import VoxelNorms
from nidl_neuro.paths import label, stem
from nidl_neuro.preparation import restore
from nidl_neuro.progress import shown
from nidl_neuro.replacing import check_free, replacing
from nidl_neuro.store import Progress

KINDS = {
    "reconstruction": "Mean of p(x | z) at the mean of q(z | x), in the units of the scan; the scan's "
    "background outside the mask",
    "residual": "Scan as prepared minus reconstruction, in the units of the scan; 0 outside the mask",
    "zmap": "Residual over the standard deviation of p(x | z) in each voxel, of the nearest one where "
    "scans were resampled; 0 outside the mask",
}
_DATATYPES = ("anat", "dwi", "func", "perf", "pet")


def write_maps(
    model: Any,
    source: Any,
    folder: str | os.PathLike[str],
    *,
    kinds: Sequence[str] = tuple(KINDS),
    norms: VoxelNorms | None = None,
    overwrite: bool = False,
    progress: Progress | bool | None = None,
) -> dict[str, list[Path]]:
    """Write maps of each scan below `folder`, a BIDS derivative; kind -> paths in the scans' order.

    Parameters
    ----------
    model : fitted estimator with `encode` and `decode`
    source : Scans, or what `scans` takes
        Prepared as the model's data were.
    folder : path
        Made if it is not there. A scan sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz gets
        sub-01/ses-2/anat/sub-01_ses-2_desc-zmap_T1w.nii.gz, any other ID_desc-zmap.nii.gz.
    kinds : of "reconstruction", "residual", "zmap"
    norms : VoxelNorms, optional
        By which z-maps are brought to the mean and spread that controls have in each voxel.
    overwrite : bool
        Replace maps that are there. Otherwise nothing is written if any is.
    progress
        As for `scans`.

    Raises
    ------
    DataError, InvalidParameter, NidlError
        Before anything is written, if a file is there, a kind is not known, or the model cannot tell.
    """
    data = as_scans(model, source)
    folder = Path(folder)
    _check(kinds, norms, model)
    names = map_names(data, kinds)
    paths = {kind: [folder / name for name in names[kind]] for kind in names}
    check_free([path for own in paths.values() for path in own], overwrite=overwrite)
    with shown(progress) as tell:
        for row, images in maps(model, data, kinds=kinds, norms=norms):
            for kind, image in images.items():
                with replacing(paths[kind][row], overwrite=overwrite) as part:
                    image.to_filename(part)
            if tell is not None:
                tell("mapping", row + 1, len(data), 0)
    _describe(folder)
    return paths


def maps(
    model: Any,
    source: Any,
    *,
    kinds: Sequence[str] = tuple(KINDS),
    norms: VoxelNorms | None = None,
) -> Iterator[tuple[int, dict[str, Nifti1Image]]]:
    """The maps of each scan in order, as (row, kind -> image on the scan's own grid).

    Few scans are in memory at once. What was resampled is interpolated back: see `restore`; z-maps have
    the nearest voxel's z, since a mean of several varies less than each. The z of
    a voxel is (x - m) / s, with m and s the mean and standard deviation of p(x | z) at the mean of
    q(z | x): the uncertainty of z is not in it. Raises as `write_maps`.
    """
    data = as_scans(model, source)
    _check(kinds, norms, model)
    mask = counted(model)
    for part in decoded(model, data, needs_sd="zmap" in kinds):
        for place, row in enumerate(part.row.tolist()):
            made = _Maps(data, row, mask, part, place, norms)
            yield row, {kind: getattr(made, kind)() for kind in kinds}


def map_names(data: Scans, kinds: Sequence[str] = tuple(KINDS)) -> dict[str, list[Path]]:
    """Kind -> the paths that the scans' maps have below a folder. Raises `DataError` for equal ones."""
    names = {kind: [_name(scan, kind) for scan in data.cohort] for kind in kinds}
    for own in names.values():
        if twice := [name for name, count in Counter(own).items() if count > 1]:
            raise DataError(
                f"the maps of several scans would be called {twice[0]}. Give each scan an id of letters "
                "and digits of its own."
            )
    return names


class _Maps:
    """The maps of one scan; values are in the units of the scan."""

    def __init__(
        self,
        data: Scans,
        row: int,
        mask: NDArray[np.bool_],
        part: Decoded,
        place: int,
        norms: VoxelNorms | None,
    ) -> None:
        self._data, self._row, self._mask, self._norms = data, row, mask, norms
        self._record = data.record(row)
        self._part = Decoded(*(values[place] for values in part))

    def reconstruction(self) -> Nifti1Image:
        return self._image(self._part.mean, scanner_units=True)

    def residual(self) -> Nifti1Image:
        return self._image((self._part.x - self._part.mean) * self._record.scale)

    def zmap(self) -> Nifti1Image:
        z = self._part.z if self._norms is None else self._norms.apply(self._part.z)
        image = self._image(z, interpolation="nearest")
        image.header.set_intent("z score")
        return image

    def _image(
        self, values: NDArray[Any], *, scanner_units: bool = False, interpolation: str = "linear"
    ) -> Nifti1Image:
        """Values (M,) on the scan's own grid; elsewhere 0, or the background in scanner units."""
        whole = np.zeros(self._mask.shape, dtype=np.float32)
        whole[self._mask] = values
        return restore(
            whole,
            self._record,
            scanner_units=scanner_units,
            mask=self._mask,
            interpolation=interpolation,
        )


def _check(kinds: Sequence[str], norms: VoxelNorms | None, model: Any) -> None:
    if isinstance(kinds, str) or not kinds or not {*kinds} <= {*KINDS}:
        raise InvalidParameter("kinds", kinds, f"some of {', '.join(KINDS)}")
    if norms is not None:
        norms.check(int(counted(model).sum()))


def _name(scan: Scan, kind: str) -> Path:
    """Where a scan's map lies: by its BIDS entities, if it is a file with a participant, or its id."""
    if "sub" in scan.entities and scan.path is not None and scan.volume is None:
        keys = {key: _safe(value) for key, value in scan.entities.items() if key != "desc"}
        entities = "_".join(f"{key}-{value}" for key, value in keys.items())
        named = stem(scan.path)
        suffix = named.rpartition("_")[2] if named.startswith("sub-") else ""
        suffix = f"_{suffix}" if suffix.isalnum() else ""
        below = scan.path.parent.name
        return Path(
            *label(keys).split("_"),
            *([below] if below in _DATATYPES else []),
            f"{entities}_desc-{kind}{suffix}.nii.gz",
        )
    *folders, last = (_safe(part) for part in scan.id.split("/") if part)
    return Path(*folders, f"{last}_desc-{kind}.nii.gz")


def _safe(name: str) -> str:
    """A name without what leads to another folder."""
    return re.sub(r"[^\w.+-]|^\.+", "-", name)


def _describe(folder: Path) -> None:
    """What BIDS wants beside derivatives, unless it is there."""
    described = {
        "Name": "Maps by nidl-neuro",
        "BIDSVersion": "1.9.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "nidl-neuro"}],
    }
    if not (folder / "dataset_description.json").exists():
        with replacing(folder / "dataset_description.json", overwrite=True) as part:
            part.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    if not (folder / "descriptions.tsv").exists():
        table = pd.DataFrame({"desc_id": [*KINDS], "description": [*KINDS.values()]})
        with replacing(folder / "descriptions.tsv", overwrite=True) as part:
            table.to_csv(part, sep="\t", index=False)
