"""A person's anatomy: the maps of MNI152, thinned, and pulled back through the person's shape.

The maps are those that nilearn carries (ICBM 2009a nonlinear symmetric; Fonov et al. 2011, Unbiased
average age-appropriate atlases for pediatric studies): a skull-stripped T1 and the probabilities of
grey and white matter, at 1 mm. They know no scanner: intensity 0 outside, about 0.28 in
cerebrospinal fluid, 0.65 in grey and 0.87 in white matter.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass

import numpy as np
from nilearn.datasets import (
    load_mni152_gm_template,
    load_mni152_template,
    load_mni152_wm_template,
)
from numpy.typing import NDArray
from scipy import ndimage

from nidl_neuro.synthetic.deformation import (
    CENTRE,
    LATTICE,
    STEP,
    Axes,
    Deformation,
    exponential,
    individual,
    regular_axes,
    shape_modes,
)
from nidl_neuro.synthetic.factors import Person

Map = NDArray[np.float32]

FLUID = 0.28  # the intensity of cerebrospinal fluid
MEASURED = 3.0  # mm: what is measured for the truth is measured in voxels of this size
EXTENT = (168.0, 192.0, 168.0)  # mm that every field of view covers
_ORIGIN = np.array([-80.0, -116.0, -80.0])  # of the box below, which holds the brain of MNI152
_BOX = (161, 199, 172)  # mm, which are voxels


@dataclass(frozen=True)
class Maps:
    """Maps (*B) of MNI152, low-passed for a voxel size; `step` is their own, in mm."""

    t1: Map
    brain: Map  # this one and the next three: the part of a voxel that it fills, 0 to 1
    grey: Map
    white: Map
    ventricles: Map  # the lateral ones
    lost: Map  # the grey matter that is fluid once the cortex has lost `share` of its thickness
    darker: Map  # what `t1` has lost then
    share: float  # of all grey matter
    step: float


@dataclass(frozen=True)
class Anatomy:
    """What there is in each voxel (*S) before any scanner looks: an ideal T1, and parts from 0 to 1."""

    t1: Map
    brain: Map
    grey: Map
    white: Map
    ventricles: Map

    @property
    def fluid(self) -> Map:
        """The part of each voxel that is cerebrospinal fluid, the ventricles included."""
        return np.asarray(np.clip(self.brain - self.grey - self.white, 0, 1))


def field_of_view(size: tuple[int, int, int]) -> tuple[Axes, float]:
    """The axes of a grid of `size` voxels that covers `EXTENT`, and its isotropic voxel size in mm."""
    voxel = max(extent / count for extent, count in zip(EXTENT, size, strict=True))
    return regular_axes(CENTRE, size, voxel), voxel


def deform(person: Person) -> Deformation:
    """The person's shape: shared modes, ventricles and what is individual, in one flow."""
    velocity = np.einsum("m,mcijk->cijk", person.shape, _modes())
    velocity += person.ventricle_growth * _ventricle_flow() + individual(person.residual)
    return Deformation(exponential(velocity), person.head_scale)


def render(
    deformation: Deformation, cortical_thickness: float, axes: Axes, voxel: float
) -> Anatomy:
    """The anatomy (*S) at the points of a regular grid of voxels of `voxel` mm."""
    maps = _maps(voxel)
    start = _ORIGIN + (maps.step - 1) / 2  # the centre of the first block of 1 mm voxels
    points = deformation.at(axes).astype(np.float32)
    places = (points - start[:, None, None, None].astype(np.float32)) / np.float32(maps.step)
    thinning = np.float32((1 - cortical_thickness) / maps.share)
    return Anatomy(
        t1=_sample(maps.t1 - thinning * maps.darker, places),
        brain=_sample(maps.brain, places),
        grey=_sample(maps.grey - thinning * maps.lost, places),
        white=_sample(maps.white, places),
        ventricles=_sample(maps.ventricles, places),
    )


def volumes(deformation: Deformation, cortical_thickness: float) -> dict[str, float]:
    """Volumes in ml of the deformed anatomy, summed over one set of points whatever the images' size."""
    step = 4.0
    axes = regular_axes(CENTRE, tuple(round(extent / step) for extent in EXTENT), step)
    found = render(deformation, cortical_thickness, axes, MEASURED)
    parts = {
        "intracranial_ml": found.brain,
        "grey_ml": found.grey,
        "white_ml": found.white,
        "csf_ml": found.fluid,
        "ventricle_ml": found.ventricles,
    }
    return {
        name: float(part.sum(dtype=np.float64)) * step**3 / 1000 for name, part in parts.items()
    }


@functools.lru_cache(maxsize=1)
def deep_white_matter() -> NDArray[np.float64]:
    """Points (K, 3) of MNI152 in mm, 2 mm apart, around which there is little but white matter."""
    maps = _maps(MEASURED)
    return _ORIGIN + (maps.step - 1) / 2 + maps.step * np.argwhere(maps.white > 0.9)


def _sample(volume: Map, places: Map) -> Map:
    return np.asarray(ndimage.map_coordinates(volume, places, order=1, mode="constant"))


@functools.lru_cache(maxsize=1)
def _atlas() -> dict[str, NDArray[np.uint8]]:
    """The maps at 1 mm in the box, from nilearn's files and from nothing else, times 255.

    Those files hold bytes too. Unwrapped, because nilearn would keep 100 MB of them in memory.
    """
    loaders = (load_mni152_template, load_mni152_gm_template, load_mni152_wm_template)
    t1, grey, white = (_boxed(inspect.unwrap(load)(resolution=1)) for load in loaders)
    white = np.minimum(white, 1 - grey)
    brain = ndimage.binary_fill_holes(t1 > 0).astype(np.float32)
    fluid = np.clip(brain - grey - white, 0, 1)
    ventricles = _lateral_ventricles(fluid, brain)
    lost = _lost(grey, white, fluid - ventricles + 1 - brain)
    maps = {
        "t1": t1,
        "brain": brain,
        "grey": grey,
        "white": white,
        "ventricles": ventricles,
        "lost": lost,
        "darker": np.clip(t1 - FLUID, 0, None) * lost,
    }
    return {name: np.round(255 * volume).astype(np.uint8) for name, volume in maps.items()}


def _boxed(image: object) -> Map:
    """The image's voxels of 1 mm in the box, zeros where it does not reach."""
    affine, data = image.affine, np.asarray(image.dataobj, dtype=np.float32)  # type: ignore[attr-defined]
    start = np.round(_ORIGIN - affine[:3, 3]).astype(int)
    box = np.zeros(_BOX, np.float32)
    spans = [
        (max(s, 0), min(s + length, n))
        for s, length, n in zip(start, _BOX, data.shape, strict=True)
    ]
    here = tuple(slice(a - s, b - s) for (a, b), s in zip(spans, start, strict=True))
    box[here] = data[tuple(slice(a, b) for a, b in spans)]
    return box


def _lateral_ventricles(fluid: Map, brain: Map) -> Map:
    """The fluid of the two deep pools of at least 1 ml whose centres lie off the midline."""
    deep = ndimage.distance_transform_edt(brain) > 25
    pools, count = ndimage.label((fluid > 0.6) & deep)
    labels = np.arange(1, count + 1)
    sides = np.array(ndimage.center_of_mass(pools > 0, pools, labels))[:, 0] + _ORIGIN[0]
    large = ndimage.sum_labels(pools > 0, pools, labels) >= 1000
    chosen = np.isin(pools, labels[large & (np.abs(sides) > 5)])
    return np.asarray(fluid * ndimage.binary_dilation(chosen, iterations=3))


def _lost(grey: Map, white: Map, outside: Map) -> Map:
    """The grey matter next to what is `outside` (sulci, and beyond the brain), which age takes first."""
    neighbours = ndimage.generate_binary_structure(3, 2)  # within 1.5 mm
    nearby = ndimage.grey_dilation(np.clip(1.5 * outside, 0, 1), footprint=neighbours)
    return np.asarray(grey - np.minimum(grey, np.clip(1 - white - nearby, 0, 1)))


@functools.lru_cache(maxsize=4)
def _maps(voxel: float) -> Maps:
    """The atlas as voxels of `voxel` mm see it: low-passed, and on as few points as that allows."""
    atlas = _atlas()
    share = float(atlas["lost"].sum(dtype=float) / atlas["grey"].sum(dtype=float))
    stride = max(1, int(voxel / 1.5))
    passed = {name: _reduced(volume, voxel, stride) for name, volume in atlas.items()}
    return Maps(**passed, share=share, step=float(stride))


def _reduced(volume: NDArray[np.uint8], voxel: float, stride: int) -> Map:
    """Means over blocks of `stride`³, smoothed to about the response of a voxel of `voxel` mm."""
    counts = [n // stride for n in volume.shape]
    kept = volume[tuple(slice(0, n * stride) for n in counts)]
    blocks = kept.reshape(counts[0], stride, counts[1], stride, counts[2], stride)
    sigma = np.sqrt(max(voxel**2 - stride**2, 0) / 12) / stride  # the variances of boxes add up
    means = blocks.mean(axis=(1, 3, 5), dtype=np.float32) / np.float32(255)
    return np.asarray(ndimage.gaussian_filter(means, sigma))


@functools.lru_cache(maxsize=1)
def _modes() -> NDArray[np.float64]:
    return shape_modes()


@functools.lru_cache(maxsize=1)
def _ventricle_flow() -> NDArray[np.float64]:
    """The velocity (3, *M) that opens the lateral ventricles: towards them, 1 mm where it is fastest.

    The gradient of the logarithm of how near they are opens them evenly: a thin horn as a wide body.
    """
    smooth = ndimage.gaussian_filter(_atlas()["ventricles"].astype(np.float32), 7.0)
    nodes = np.meshgrid(
        *(axis - o for axis, o in zip(LATTICE, _ORIGIN, strict=True)), indexing="ij"
    )
    there = ndimage.map_coordinates(smooth, nodes, order=1, mode="nearest").astype(np.float64)
    flow = np.stack(np.gradient(np.log(there + 0.2 * there.max()), STEP))
    return np.asarray(flow / np.sqrt((flow**2).sum(axis=0)).max())
