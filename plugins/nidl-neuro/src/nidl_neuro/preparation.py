"""Scans made alike, and arrays put back onto the grid of each scan.

S is the prepared shape. Steps, in this order: RAS+ orientation, voxel size, mask, crop or pad,
intensity, dtype. Each leaves in the `Record` what it did.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Image
from nibabel.spatialimages import SpatialImage
from numpy.typing import ArrayLike, NDArray

from nidl_core.errors import InvalidParameter, ShapeError
from nidl_core.registry import unknown_parameter
from nidl_neuro.errors import ScanError
from nidl_neuro.framing import Frame
from nidl_neuro.grid import (
    Array,
    Grid,
    reorient,
    reorient_back,
    resample,
    smooth,
    smoothing,
    window,
)
from nidl_neuro.intensity import SCALINGS, check_varies, scaling
from nidl_neuro.masks import GivenMask
from nidl_neuro.record import Record, header_of
from nidl_neuro.voxels import background_of, check_millimetres, checked_grid, checked_voxels

_ORDERS = {"linear": 1, "cubic": 3, "nearest": 0}  # of the splines
_MASKS = ("nonzero", "computed", "none")
_CHOICES = {
    "centre": ("volume", "mask"),
    "intensity": SCALINGS,
    "interpolation": tuple(_ORDERS),
    "dtype": ("float32", "float16", "float64"),
}


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan on the prepared grid: `array` (1, *S), bool `mask` (*S) and what was done."""

    array: NDArray[Any]
    mask: NDArray[np.bool_]
    record: Record


@dataclass(frozen=True)
class Preparation:
    """What is to be done to every scan, as plain data.

    Axes are always turned to RAS+, which only swaps and flips; an oblique scan stays oblique.

    Parameters
    ----------
    voxel_size : float or three floats, optional
        In mm. The grid keeps the centre and the directions of the scan's, and covers its field of
        view. What gets coarser is smoothed first, see `grid.smoothing`. None keeps the scan's own.
        A scan with sheared axes is refused unless a voxel size is given: then it is resampled
        onto the nearest axes at right angles.
    shape : int or three ints, optional
        S, reached by crop or pad on both sides alike (of an odd number, a crop takes one more at
        the end, a pad one more at the front). Padding has the value of the background: the median
        of the voxels on the six faces of the scan. None keeps the shape.
    centre : "volume" or "mask"
        What stays in the middle of `shape`: the field of view, which keeps registered scans aligned
        with each other, or the box around the scan's own mask.
    mask : str, path, image, array or None
        "nonzero": voxels that are not 0, the brain of a skull-stripped scan. "computed": where the
        brain of the MNI152 template lies, ventricles included, for scans registered to MNI space. "none" or
        None: the field of view. A path or an image: on the grid of the scans or on the prepared
        one; an array: on the prepared one (*S). What is given is read at once and kept, as a
        `GivenMask`. Voxels outside the mask keep their values.
    intensity : "zscore", "percentiles" or "none"
        By the values in the mask: to mean 0 and standard deviation 1, or the 1st and 99th
        percentile to 0 and 1. Nothing is clipped.
    interpolation : "linear", "cubic" or "nearest"
        For the voxel size; masks always take the nearest voxel.
    dtype : "float32", "float16" or "float64"
        Of the prepared array.

    Example:
        >>> Preparation(voxel_size=2, shape=(96, 112, 96)).to_dict()["voxel_size"]
        (2.0, 2.0, 2.0)
    """

    voxel_size: Any = None
    shape: Any = None
    centre: str = "volume"
    mask: Any = "nonzero"
    intensity: str = "zscore"
    interpolation: str = "linear"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        lengths = "a finite number of mm above 0, three of them, or None"
        self._set("voxel_size", _three("voxel_size", self.voxel_size, Real, lengths))
        counts = "an int of at least 1, three of them, or None"
        self._set("shape", _three("shape", self.shape, Integral, counts))
        self._set("intensity", "none" if self.intensity is None else self.intensity)
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if not isinstance(value, str) or value not in choices:
                raise InvalidParameter(name, value, " or ".join(map(repr, choices)))
        if self.mask is None:
            self._set("mask", "none")
        elif not isinstance(self.mask, GivenMask):
            if not isinstance(self.mask, str) or self.mask not in _MASKS:
                self._set("mask", GivenMask.read(self.mask))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, a given mask included."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preparation:
        """From what `to_dict` gave, before or after JSON; what is left out has its default.

        Raises `UnknownParameter` and `InvalidParameter`.
        """
        accepted = [field.name for field in fields(cls)]
        for key in data:
            if key not in accepted:
                raise unknown_parameter("Preparation", key, accepted)
        return cls(**data)

    def prepared_shape(self, image: SpatialImage, name: str = "") -> tuple[int, ...]:
        """S for an image, without reading its voxels. Raises `ScanError` for a grid of no use."""
        name = _name(image, name)
        grid, _ = checked_grid(image, name).canonical()
        whole = self._whole(image, grid, name)
        return tuple(self.shape or whole.shape)

    def prepare(self, image: SpatialImage, name: str = "") -> Prepared:
        """Apply it to a 3-D image, which stays as it is.

        `name` stands in errors and in the record; without it, the image's file name. Raises
        `ScanError` for an image that cannot be prepared.
        """
        name = _name(image, name)
        own = checked_grid(image, name)
        grid, swap = own.canonical()
        whole = self._whole(image, grid, name)
        values = reorient(checked_voxels(image, own, self._working_dtype, name), swap)
        check_varies(values, self.intensity, name)
        background = background_of(values)
        frame = Frame(name, grid, whole, self.mask)
        mask = frame.find_mask(values)
        values, fwhm = self._resampled(values, grid, whole, background)
        shape = self.shape or whole.shape
        start = frame.start(mask, shape, self.centre) if self.shape else (0, 0, 0)
        inside = frame.mask_in(mask, start, shape)
        array = window(values, start, shape, background)
        shift, scale = scaling(array[inside], self.intensity, name)
        if self.intensity != "none":
            array -= array.dtype.type(shift)
            array /= array.dtype.type(scale)
        record = Record(
            name=name,
            own_shape=tuple(map(int, image.shape)),
            own_affine=own.rows,
            header=header_of(image),
            resampled_shape=None if whole is grid else whole.shape,
            resampled_affine=None if whole is grid else whole.rows,
            interpolation=self.interpolation,
            smoothed=tuple(map(float, fwhm)),
            start=start,
            shape=shape,
            mask=self.mask.name if isinstance(self.mask, GivenMask) else self.mask,
            mask_voxels=int(inside.sum()),
            mask_cut=0 if mask is None or self.mask == "none" else int(mask.sum() - inside.sum()),
            intensity=self.intensity,
            shift=shift,
            scale=scale,
            background=background,
            dtype=self.dtype,
        )
        return Prepared(_cast(array, self.dtype, name)[None], inside, record)

    @property
    def _working_dtype(self) -> str:
        return "float64" if self.dtype == "float64" else "float32"

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # the class is frozen

    def _whole(self, image: SpatialImage, grid: Grid, name: str) -> Grid:
        """The grid before crop and pad: `grid` itself where nothing is resampled."""
        if self.voxel_size is not None or self.mask == "computed":
            check_millimetres(image, grid, name)
        if self.voxel_size is not None:
            return grid.with_voxels(self.voxel_size)
        if not grid.orthogonal:
            raise ScanError(
                name,
                "the axes of its affine are not at right angles (it is sheared)",
                "Give a voxel_size, to have it resampled onto axes that are.",
            )
        return grid

    def _resampled(
        self, values: Array, grid: Grid, whole: Grid, background: float
    ) -> tuple[Array, Array]:
        """`values` on the grid before crop and pad, and the FWHM (3,) in mm of the blur."""
        if whole is grid:
            return values, np.zeros(3)
        fwhm = np.zeros(3) if self.interpolation == "nearest" else smoothing(grid, whole)
        order = _ORDERS[self.interpolation]
        return resample(smooth(values, grid, fwhm), grid, whole, order, background), fwhm


def restore(
    array: ArrayLike,
    record: Record,
    *,
    scanner_units: bool = True,
    mask: ArrayLike | None = None,
    interpolation: str = "linear",
) -> Nifti1Image:
    """An array (1, *S) or (*S) on the prepared grid as an image on the scan's own grid.

    Shape, affine, orientation, units and both transforms with their codes are the scan's. What was
    only turned, cropped or padded comes back to the rounding of its dtype; what was resampled is
    interpolated at the scan's voxel centres. Header extensions are not kept.

    Parameters
    ----------
    array
        float16, float32 (as float32) or float64. Integers and bool (as uint8) are labels: the nearest
        voxel's, as they are.
    record : Record of the scan
    scanner_units : bool
        Undo the normalisation, and give what the crop cut off the scan's background. Without, as for
        z-maps and residuals, values stay as they are, and what was cut off is 0.
    mask : bool (*S), optional
        Positions outside it get the background, or 0, whatever the array has there.
    interpolation : "linear" or "nearest"
        "nearest" for what must keep its distribution, as z does: a mean of neighbours has a smaller
        spread than each of them.

    Raises `ShapeError` for an array of another grid, `InvalidParameter`.
    """
    if interpolation not in ("linear", "nearest"):
        raise InvalidParameter("interpolation", interpolation, "'linear' or 'nearest'")
    data = np.asarray(array)
    if data.shape not in (record.shape, (1, *record.shape)):
        raise ShapeError(
            f"restore takes an array of shape {(1, *record.shape)} for {record.name}, got "
            f"{data.shape}. Give one scan at a time, on the grid that its record tells of."
        )
    data, is_label = data.reshape(record.shape), data.dtype.kind in "biu"
    scanner_units = scanner_units and not is_label
    dtype = _label_dtype(data) if is_label else np.promote_types(np.float32, data.dtype)
    if scanner_units:
        data = data * np.float64(record.scale) + record.shift
    fill = record.background if scanner_units else 0.0
    if mask is not None:
        data = np.where(_mask_of(mask, record), data, fill)
    grid, swap = record.own_grid.canonical()
    whole = record.whole_grid
    back = [-n for n in record.start]
    data = window(data.astype(dtype), back, whole.shape, fill)
    if record.resampled_shape is not None:
        order = 0 if is_label or interpolation == "nearest" else 1
        data = resample(data, whole, grid, order=order, fill=fill)
    header = record.own_header()
    header.set_data_dtype(dtype)
    if not scanner_units:  # the range to display is one of scanner units
        header["cal_min"] = header["cal_max"] = 0
    own = np.ascontiguousarray(reorient_back(data, swap)).reshape(record.own_shape)
    return Nifti1Image(own, np.array(record.own_affine), header)


def _label_dtype(labels: Array) -> Any:
    """The smallest integer type of NIfTI-1 that holds them all, uint8 or signed."""
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    kinds = (np.uint8, np.int16, np.int32, np.int64)
    return next(k for k in kinds if np.iinfo(k).min <= low and high <= np.iinfo(k).max)


def _mask_of(mask: ArrayLike, record: Record) -> NDArray[np.bool_]:
    inside = np.asarray(mask, dtype=bool)
    if inside.shape != record.shape:
        raise ShapeError(
            f"the mask for {record.name} has the shape {record.shape}, got {inside.shape}."
        )
    return inside


def _name(image: SpatialImage, name: str) -> str:
    return str(name) or image.get_filename() or "an image in memory"


def _cast(array: Array, dtype: str, name: str) -> Array:
    largest = np.abs(array).max()
    if largest > np.finfo(dtype).max:
        raise ScanError(
            name,
            f"values up to {largest:g} do not fit into {dtype}",
            "Choose dtype='float32', or an intensity other than 'none'.",
        )
    return array.astype(dtype, copy=False)


def _three(parameter: str, value: Any, kind: type, expected: str) -> tuple[Any, ...] | None:
    """One number for all axes, or three, as plain positive numbers of that kind; None stays."""
    if value is None:
        return None
    several = isinstance(value, (list, tuple, np.ndarray))
    numbers = tuple(value) if several else (value,) * 3
    if len(numbers) != 3 or not all(_is_positive(number, kind) for number in numbers):
        raise InvalidParameter(parameter, value, expected)
    return tuple(int(n) if kind is Integral else float(n) for n in numbers)


def _is_positive(number: Any, kind: type) -> bool:
    if not isinstance(number, kind) or isinstance(number, bool):
        return False
    return 0 < float(number) < math.inf  # type: ignore[arg-type]  # both kinds have a float
