"""What an image holds, checked: its grid and its voxels, each `ScanError` with its name."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Header
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from nidl_neuro.errors import ScanError
from nidl_neuro.grid import Grid, by

_UNITS = {0: "", 1: "meter", 2: "", 3: "micron"}  # by the code in the header; none is taken as mm
_LARGEST = 1e4  # mm along an axis
_SINGULAR = 1e-6  # volume of a voxel over the product of its edges, below which it is flat


def checked_grid(image: SpatialImage, name: str) -> Grid:
    """The grid of a 3-D image (further axes of length one may follow); reads no voxel."""
    shape = tuple(int(n) for n in image.shape)
    if len(shape) < 3 or any(n != 1 for n in shape[3:]) or 0 in shape:
        axes = f"({', '.join(map(str, shape))})"
        several = len(shape) > 3 and 0 not in shape
        remedy = "Take one volume of it: image.slicer[..., 0]." if several else "Leave it out."
        raise ScanError(
            name, f"an image of shape {axes}, where one of three axes is expected", remedy
        )
    if image.affine is None or not np.isfinite(image.affine).all():
        raise ScanError(
            name,
            "its affine is missing or not finite, so that nothing says where its voxels lie",
            "Repair its header, or convert it anew.",
        )
    grid = Grid(shape[:3], np.array(image.affine, np.float64))
    if not (grid.voxel_size > 0).all():
        raise ScanError(
            name,
            f"voxels of {by(grid.voxel_size)} mm, where sizes above 0 are expected",
            "Repair its header, or convert it anew.",
        )
    volume = abs(np.linalg.det(grid.affine[:3, :3]))
    if volume < _SINGULAR * grid.voxel_size.prod():
        raise ScanError(
            name,
            "its affine is singular: two axes of the array run the same way",
            "Repair its header, or convert it anew.",
        )
    return grid


def checked_voxels(image: SpatialImage, grid: Grid, dtype: str, name: str) -> NDArray[Any]:
    """The voxels (*S) in that floating dtype, scale factors applied; maybe the image's own memory."""
    kind = image.get_data_dtype().kind
    if kind not in "biuf":
        raise ScanError(
            name,
            f"its voxels are of type {image.get_data_dtype()}, where real numbers are expected",
            "Save one channel or the magnitude as numbers.",
        )
    try:
        with np.errstate(over="ignore"):  # a value beyond float32 is infinite, and told below
            data = np.asarray(image.get_fdata(dtype=np.dtype(dtype), caching="unchanged"))
    except (OSError, EOFError, ValueError, zlib.error, ImageFileError) as err:
        raise ScanError(
            name,
            f"its voxels cannot be read ({type(err).__name__}: {err})",
            "The file is damaged or cut off: copy or convert it anew.",
        ) from err
    finite = np.isfinite(data)
    if not finite.all():
        nans = int(np.isnan(data).sum())
        infinite = int(data.size - finite.sum()) - nans
        raise ScanError(
            name,
            f"{nans} voxels are NaN and {infinite} infinite, of {data.size}",
            "Set them to the background: numpy.nan_to_num(data, posinf=0, neginf=0).",
        )
    return np.asarray(data.reshape(grid.shape))


def background_of(values: NDArray[Any]) -> float:
    """The median of the voxels on the six faces, as nilearn's `compute_background_mask` guesses it."""
    faces = [np.moveaxis(values, axis, 0)[end].ravel() for axis in range(3) for end in (0, -1)]
    return float(np.median(np.concatenate(faces)))


def check_millimetres(image: SpatialImage, grid: Grid, name: str) -> None:
    """Raise `ScanError` if the header says that its lengths are in another unit, or beyond belief."""
    remedy = "Convert it, or correct the unit: image.header.set_xyzt_units('mm')."
    code = 0
    if isinstance(image.header, Nifti1Header):
        code = int(image.header["xyzt_units"]) % 8  # the rest is the unit of time
    if code not in _UNITS:
        raise ScanError(
            name, f"its header is damaged: no unit of length has the code {code}", remedy
        )
    if unit := _UNITS[code]:
        raise ScanError(
            name,
            f"its header gives lengths in {unit}, and a voxel size in mm was asked for",
            remedy,
        )
    if max(extent := grid.voxel_size * grid.shape) > _LARGEST:
        raise ScanError(
            name,
            f"its header gives it a size of {by(extent)} mm, more than 10 m",
            "Write the true voxel size into its header.",
        )
