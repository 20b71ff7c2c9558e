"""What a scanner makes of an anatomy: contrast, blur, bias field, gain and noise, by site."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nidl_neuro.synthetic.anatomy import EXTENT, Map
from nidl_neuro.synthetic.deformation import CENTRE, Axes
from nidl_neuro.synthetic.factors import SITES, normal

_FIELD = (3, 3, 3)  # cosines an axis that make a bias field
_FWHM = 2 * np.sqrt(2 * np.log(2))  # of a Gaussian, in standard deviations


@dataclass(frozen=True, eq=False)
class Scanner:
    """How one site measures. White matter of an ideal anatomy has intensity 0.87."""

    gain: float  # scanner units for intensity 1
    contrast: float  # added to the intensity of pure grey matter
    blur: float  # mm, full width at half maximum
    bias: NDArray[np.float64]  # (3, 3, 3), cosine coefficients of the logarithm of the bias field
    noise: float  # standard deviation of the real and the imaginary part, intensity


def scanner(site: str) -> Scanner:
    """The scanner of a site: the same in every cohort, whatever its seed."""
    k = SITES.index(site)
    # Multiples of irrational numbers keep any few sites apart in every property.
    gain, contrast, blur, strength, noise = (
        (start + k * step) % 1
        for start, step in [(0.2, 0.755), (0.2, 0.57), (0.1, 0.43), (0.3, 0.325), (0.15, 0.618)]
    )
    field = np.random.default_rng([1955, k]).standard_normal(_FIELD)
    field[0, 0, 0] = 0  # that would be a gain
    return Scanner(
        gain=500 + 700 * gain,
        contrast=-0.07 + 0.12 * contrast,
        blur=1 + 4 * blur,
        bias=(0.08 + 0.1 * strength) * field / np.linalg.norm(field),
        noise=0.012 + 0.03 * noise,
    )


def scan(
    t1: Map, grey: Map, axes: Axes, voxel: float, machine: Scanner, rng: np.random.Generator
) -> Map:
    """The magnitude image (*S) that `machine` takes, in its units.

    The day adds to the machine: 3 % of gain, and a change of the bias field. Noise is Rician
    (Gudbjartsson & Patz 1995) and of the same size in each voxel, however large the voxels.
    """
    gain = machine.gain * np.exp(0.03 * normal(rng, 1)[0])
    bias = machine.bias + 0.01 * normal(rng, _FIELD)
    sigma = machine.blur / (_FWHM * voxel)
    seen = ndimage.gaussian_filter(t1 + np.float32(machine.contrast) * grey, sigma)
    seen *= _bias_field(bias, axes)
    real, imaginary = rng.standard_normal((2, *seen.shape), dtype=np.float32)
    deviation = np.float32(machine.noise)
    return np.asarray(gain * np.hypot(seen + deviation * real, deviation * imaginary), np.float32)


def _bias_field(coefficients: NDArray[np.float64], axes: Axes) -> Map:
    """exp of a sum of products of cosines (*S), one half wave across the field of view and two."""
    waves = zip(axes, CENTRE, EXTENT, strict=True)
    x, y, z = (
        np.cos(np.pi * np.outer(np.arange(3), (axis - centre) / extent + 0.5))
        for axis, centre, extent in waves
    )
    partial = np.einsum("abc,ai,bj->ijc", coefficients, x, y)
    return np.asarray(np.exp(np.einsum("ijc,ck->ijk", partial, z)), np.float32)
