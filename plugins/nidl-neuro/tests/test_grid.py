"""Grids, windows and resampling, against nibabel, nilearn and formulas."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff
from nilearn.image import resample_img
from scipy.spatial.transform import Rotation

from nidl_neuro.grid import Grid, reorient, reorient_back, resample, smooth, smoothing, window

TURN = np.eye(4)
TURN[:3, :3] = Rotation.from_euler("xyz", [12, -20, 8], degrees=True).as_matrix()


def grid_of(codes: str, size: tuple[float, ...] = (1, 1, 1), turn: np.ndarray = TURN) -> Grid:
    shape = (7, 10, 12)
    affine = np.linalg.inv(inv_ornt_aff(axcodes2ornt(codes), (1, 1, 1))) @ np.diag([*size, 1.0])
    affine[:3, 3] = [-9, 14, 3]
    return Grid(shape, turn @ affine)


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PSR", "ILA"])
def test_canonical_matches_nibabel_and_goes_back(codes: str) -> None:
    grid = grid_of(codes, (1, 2, 3))
    array = np.random.default_rng(0).normal(size=grid.shape)
    canonical, swap = grid.canonical()
    expected = nibabel.as_closest_canonical(nibabel.Nifti1Image(array, grid.affine))
    np.testing.assert_array_equal(reorient(array, swap), expected.get_fdata())
    np.testing.assert_allclose(canonical.affine, expected.affine, atol=1e-12)
    assert (grid.orientation, canonical.orientation) == (codes, "RAS")
    assert canonical.shape == expected.shape
    np.testing.assert_array_equal(reorient_back(reorient(array, swap), swap), array)


def test_new_voxels_keep_the_middle_and_the_axes_and_cover_the_field_of_view() -> None:
    grid = grid_of("RAS", (1, 1, 3))
    new = grid.with_voxels((2, 2, 2))
    assert new.shape == (4, 5, 18)  # 7, 10 and 36 mm
    np.testing.assert_allclose(new.voxel_size, 2)
    np.testing.assert_allclose(new.affine[:3, :3] / 2, grid.affine[:3, :3] / grid.voxel_size)
    for axis in np.eye(3):
        middles = [g.affine @ [*((np.array(g.shape) - 1) / 2), 1] for g in (grid, new)]
        np.testing.assert_allclose(*middles, atol=1e-12)
        reach = [abs(axis * g.shape * g.voxel_size).sum() for g in (grid, new)]
        assert reach[0] <= reach[1] < reach[0] + 2


def test_voxels_of_the_right_size_are_left_alone() -> None:
    grid = Grid((7, 10, 12), np.diag([np.float32(0.9), 0.9, 1.1, 1]))
    assert grid.with_voxels((0.9, 0.9, 1.1)) is grid


def test_a_shear_is_told_from_a_turn_and_straightened() -> None:
    shear = np.eye(4)
    shear[0, 1] = 0.3
    grid = Grid((7, 10, 12), TURN @ shear)
    straight = grid.with_voxels((1, 1, 1))
    assert (grid_of("PSR").orthogonal, grid.orthogonal, straight.orthogonal) == (True, False, True)
    corners = np.array([*np.ndindex(2, 2, 2)]) * grid.shape - 0.5
    index = np.linalg.inv(straight.affine) @ grid.affine @ np.c_[corners, np.ones(8)].T
    assert index[:3].min() > -0.51
    assert (index[:3].max(axis=1) < np.array(straight.shape) - 0.49).all()


def test_grids_are_the_same_up_to_a_tenth_of_a_voxel() -> None:
    grid = grid_of("LAS", (1, 1, 3))
    near, far, longer = grid.affine.copy(), grid.affine.copy(), grid.affine.copy()
    near[0, 3] += 0.09
    far[0, 3] += 0.11
    longer[:3, 0] *= 1.02  # 6 voxels on, 0.12 mm
    assert [grid.same_as(Grid(grid.shape, a)) for a in (near, far, longer)] == [True, False, False]
    assert not grid.same_as(Grid((7, 10, 13), grid.affine))


@pytest.mark.parametrize(
    ("start", "shape"),
    [((1, 2, 0), (4, 3, 12)), ((-2, -1, -3), (11, 12, 20)), ((-2, 3, 9), (5, 9, 9))],
)
def test_a_window_keeps_positions_and_its_inverse_what_was_kept(
    start: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    grid = grid_of("LAS")
    array = np.random.default_rng(0).normal(size=grid.shape)
    part = window(array, start, shape, fill=-5)
    padded = np.pad(array, 20, constant_values=-5)
    at = tuple(slice(20 + s, 20 + s + n) for s, n in zip(start, shape, strict=True))
    np.testing.assert_array_equal(part, padded[at])
    back = window(part, [-s for s in start], array.shape, fill=np.nan)
    kept = np.isfinite(back)
    np.testing.assert_array_equal(back[kept], array[kept])
    assert kept.sum() == (part != -5).sum() > 0
    index = np.array([2, 1, 3, 1])
    moved = index + np.array([*start, 0])
    np.testing.assert_allclose(grid.window(start, shape).affine @ index, grid.affine @ moved)


def test_a_window_beside_the_array_is_all_fill() -> None:
    assert (window(np.ones((3, 4, 5)), (9, 0, 0), (2, 2, 2), fill=7) == 7).all()


@pytest.mark.parametrize("size", [(0.83, 0.83, 0.83), (1.3, 0.9, 2.5)])
@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
def test_resampling_matches_nilearn_inside(size: tuple[float, ...], interpolation: str) -> None:
    grid = Grid((16, 13, 10), grid_of("LAS", (1, 1, 3)).affine)
    target = grid.with_voxels(size)
    array = np.random.default_rng(0).normal(size=grid.shape).astype(np.float32)
    got = resample(array, grid, target, order={"nearest": 0, "linear": 1}[interpolation])
    expected = resample_img(
        nibabel.Nifti1Image(array, grid.affine),
        target_affine=target.affine,
        target_shape=target.shape,
        interpolation=interpolation,
        copy_header=True,
        force_resample=True,
    ).get_fdata()
    inside = (slice(3, -3),) * 3  # nilearn takes 0 beyond the outermost centres
    np.testing.assert_allclose(got[inside], expected[inside], atol=1e-5)
    assert got[inside].size > 20


def test_the_outermost_value_counts_up_to_the_edge_of_the_field_of_view() -> None:
    grid = grid_of("RAS")
    got = resample(np.full(grid.shape, 4.0), grid, grid.with_voxels((0.4, 0.4, 0.4)), order=1)
    np.testing.assert_allclose(got, 4.0)


def test_the_blur_is_the_difference_of_the_voxels_squared_and_none_where_they_shrink() -> None:
    grid = grid_of("RAS", (1, 1, 3))
    fwhm = smoothing(grid, grid.with_voxels((2, 1, 2)))
    np.testing.assert_allclose(fwhm, [np.sqrt(3), 0, 0], atol=1e-12)


def test_a_blurred_point_has_the_width_asked_for() -> None:
    point = np.zeros((41, 41, 41))
    point[20, 20, 20] = 1
    blurred = smooth(point, Grid((41, 41, 41), np.diag([1, 1, 2.0, 1])), np.array([5.0, 8.0, 0.0]))
    assert blurred.sum() == pytest.approx(1)
    for axis, fwhm in enumerate([5.0, 8.0]):
        line = blurred[20, :, 20] if axis else blurred[:, 20, 20]
        distance = np.abs(np.arange(41) - 20)
        expected = np.exp(-4 * np.log(2) * distance**2 / fwhm**2)
        np.testing.assert_allclose(line / line.max(), expected, atol=2e-4)
    assert blurred[:, :, 19].max() == 0
