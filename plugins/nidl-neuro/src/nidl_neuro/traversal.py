"""A way through the latent space, decoded: volumes along one latent dimension, or along a covariate.

K steps, L latents, S the prepared grid.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Image
from numpy.typing import ArrayLike, NDArray

from nidl_core.errors import InvalidParameter, ShapeError
from nidl_core.parameters import check_float, check_int
from nidl_neuro.data import Scans
from nidl_neuro.decoding import counted
from nidl_neuro.replacing import check_free, replacing

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Traversal:
    """Decoded volumes along a way through the latents.

    `volumes` are means of p(x | z), in prepared units.
    """

    name: str  # of what changes: "z3", "age"
    steps: tuple[Any, ...]  # K values of it
    unit: str  # of the steps: "sd", "" for the covariate's own
    latents: Array  # (K, L)
    volumes: Array  # (K, 1, *S)


def traverse(
    model: Any,
    latents: ArrayLike | None = None,
    dimension: int = 0,
    *,
    around: ArrayLike | None = None,
    reach: float = 3.0,
    steps: int = 7,
    outside: float = 0.0,
) -> Traversal:
    """Decode a latent dimension from -reach to +reach standard deviations, the others kept.

    latents (N, L): of a cohort; mean and standard deviation are theirs. Without them they are the
        prior's, 0 and 1.
    around (L,): latents of one scan to start from, instead of the mean.
    steps: odd, so that the one in the middle changes nothing.
    outside: what voxels outside the model's mask are to have: see `background`.

    Dimensions of a VAE are not causes, and have no order or sign of their own. Raises
    `InvalidParameter` and `ShapeError`.
    """
    check_int("steps", steps, least=3)
    if steps % 2 == 0:
        raise InvalidParameter("steps", steps, "an odd number")
    check_float("reach", reach, above=True)
    mean, sd = _spread(model, latents)
    check_int("dimension", dimension, least=0)
    if dimension >= len(mean):
        raise InvalidParameter("dimension", dimension, f"from 0 to {len(mean) - 1}")
    start = mean if around is None else np.asarray(around, dtype=np.float64)
    if start.shape != mean.shape:
        raise ShapeError(f"around must have the shape {mean.shape}, got {start.shape}.")
    values = np.linspace(-reach, reach, steps)
    z = np.repeat(start[None], steps, axis=0)
    z[:, dimension] += values * sd[dimension]
    return decode(model, z, f"z{dimension}", values.tolist(), "sd", outside=outside)


def decode(
    model: Any,
    latents: ArrayLike,
    name: str,
    steps: Sequence[Any],
    unit: str = "",
    *,
    outside: float = 0.0,
) -> Traversal:
    """Latents (K, L), one a step, as a `Traversal`.

    They may be anything: those that `Conditional.mean` gives, those of several scans, or the way from
    one scan to another. Raises `ShapeError`.
    """
    z = np.asarray(latents, dtype=np.float32)
    if len(z) != len(steps):
        raise ShapeError(f"{len(z)} latents and {len(steps)} steps: one of each is wanted.")
    volumes = np.array(model.inverse_transform(z))
    volumes[..., ~counted(model)] = outside
    return Traversal(name, tuple(steps), unit, z, volumes)


def background(data: Scans) -> float:
    """The background of the scans in prepared units: the median over up to 100 of them.

    0, which a model gives outside its mask, is the mean of the brain where scans are z-scored.
    """
    rows = np.linspace(0, len(data) - 1, min(len(data), 100)).round().astype(int)
    records = [data.record(int(row)) for row in rows]
    return float(np.median([(one.background - one.shift) / one.scale for one in records]))


def write_volumes(
    path: str | os.PathLike[str],
    volumes: ArrayLike,
    affine: ArrayLike,
    *,
    described: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Volumes (K, 1, *S) on the prepared grid as one 4-D image (*S, K), float32.

    `affine` (4, 4) is that of the prepared grid, in mm: `data.record(0).affine`. What is `described`
    goes to a `.json` beside it. Values stay in prepared units. Raises `ShapeError`, `DataError`,
    and `InvalidParameter` for a name that does not end in .nii or .nii.gz.
    """
    path = _image_path(path)
    array = np.asarray(volumes, dtype=np.float32)
    if array.ndim != 5 or array.shape[1] != 1:
        raise ShapeError(f"volumes have the shape (K, 1, X, Y, Z), got {array.shape}.")
    image = Nifti1Image(np.moveaxis(array[:, 0], 0, -1), np.asarray(affine, dtype=np.float64))
    image.header.set_xyzt_units("mm")
    beside = _json_beside(path)
    check_free([path, *([beside] if described else [])], overwrite=overwrite)
    with contextlib.ExitStack() as stack:
        if described:
            text = stack.enter_context(replacing(beside, overwrite=overwrite))
            text.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        image.to_filename(stack.enter_context(replacing(path, overwrite=overwrite)))
    return path


def write_traversal(
    path: str | os.PathLike[str],
    traversal: Traversal,
    affine: ArrayLike,
    *,
    overwrite: bool = False,
) -> Path:
    """A traversal as one 4-D image, one volume a step, and its steps and latents in a `.json`."""
    described = {
        "Description": f"Means of p(x | z) along {traversal.name}, in prepared units",
        "Along": traversal.name,
        "Steps": [_plain(step) for step in traversal.steps],
        "Units": traversal.unit or "n/a",
        "Latents": traversal.latents.tolist(),
    }
    return write_volumes(path, traversal.volumes, affine, described=described, overwrite=overwrite)


def _spread(model: Any, latents: ArrayLike | None) -> tuple[Array, Array]:
    width = model.fc_mu.out_features if hasattr(model, "fc_mu") else model.latent_dim
    if latents is None:
        return np.zeros(width), np.ones(width)
    z = np.asarray(latents, dtype=np.float64)
    if z.ndim != 2 or z.shape[1] != width or len(z) < 2:
        raise ShapeError(f"latents of at least 2 scans have the shape (N, {width}), got {z.shape}.")
    return z.mean(axis=0), z.std(axis=0, ddof=1)


def _image_path(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise InvalidParameter("path", str(path), "the path of a .nii.gz or .nii file")
    return path


def _json_beside(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")


def _plain(step: Any) -> Any:
    number = step.item() if isinstance(step, np.generic) else step
    return None if isinstance(number, float) and not math.isfinite(number) else number
