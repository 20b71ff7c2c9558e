"""Norms of each voxel: those of numpy, however the scans come in, and of the others for each."""

from __future__ import annotations

import numpy as np
import pytest

from nidl_core.errors import DataError
from nidl_neuro.norms import VoxelNorms


def z_maps(n=11, voxels=30, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(1e4 * rng.normal(size=voxels), 1 + rng.random(voxels), size=(n, voxels))


@pytest.mark.parametrize("pieces", [1, 3, 11])
def test_mean_and_sd_are_numpys(pieces):
    z = z_maps()
    norms = VoxelNorms.of(np.array_split(z, pieces))
    np.testing.assert_allclose(norms.mean, z.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(norms.sd, z.std(axis=0, ddof=1), rtol=1e-9)
    assert norms.count == 11
    np.testing.assert_allclose(norms.apply(z)[2], (z[2] - norms.mean) / norms.sd)


def test_a_scan_left_out_is_as_if_it_had_not_been_there():
    z = z_maps(7)
    got = VoxelNorms.of([z]).left_out(z)
    for i in range(len(z)):
        others = np.delete(z, i, axis=0)
        expected = (z[i] - others.mean(axis=0)) / others.std(axis=0, ddof=1)
        np.testing.assert_allclose(got[i], expected, rtol=1e-6)


def test_a_voxel_without_variation_does_not_count_as_infinitely_steady():
    z = z_maps()
    z[:, 3] = 5.0
    norms = VoxelNorms.of([z])
    assert norms.sd[3] == pytest.approx(0.1 * np.median(z.std(axis=0, ddof=1)))
    assert np.isfinite(norms.left_out(z)).all()


def test_too_few_or_equal_scans_are_refused():
    with pytest.raises(DataError, match="at least 3 reference scans, got 2"):
        VoxelNorms.of([z_maps(2)])
    with pytest.raises(DataError, match="the same values in most voxels"):
        VoxelNorms.of([np.ones((5, 4))])
