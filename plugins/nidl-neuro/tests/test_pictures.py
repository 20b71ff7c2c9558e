"""Pictures: the right slices, the right way up, in files that hold what they should."""

from __future__ import annotations

import builtins

import numpy as np
import pytest

from nidl_core.errors import DataError, InvalidParameter, NidlError, ShapeError
from nidl_neuro.pictures import overview, picture, write_picture
from nidl_neuro.traversal import Traversal

image_module = pytest.importorskip(
    "matplotlib.image", reason="nidl-neuro[figures] is not installed"
)
AFFINE = np.diag([2.0, 3.0, 4.0, 1.0])
SHAPE = (9, 11, 7)


def way(steps=3, name="z0"):
    volumes = np.random.default_rng(0).normal(size=(steps, 1, *SHAPE)).astype(np.float32)
    return Traversal(name, tuple(range(steps)), "sd", np.zeros((steps, 2)), volumes)


def shown(axes):
    """The array that an axes shows, and the limits of its colours."""
    (image,) = axes.get_images()
    return np.asarray(image.get_array()), image.get_clim()


def test_slices_cross_in_the_voxel_asked_for_and_run_right_and_up():
    traversal = way()
    figure = picture(traversal, AFFINE, at=(1, 2, 3))
    panels = figure.axes
    first = traversal.volumes[0, 0]
    for row, expected in enumerate((first[1].T, first[:, 2].T, first[:, :, 3].T)):
        got, _ = shown(panels[3 * row])
        np.testing.assert_array_equal(got, expected)
        assert panels[3 * row].get_images()[0].origin == "lower"
    assert panels[0].get_aspect() == pytest.approx(4 / 3)  # sagittal: 4 mm up, 3 mm across


def test_changes_are_from_the_middle_on_one_scale_around_zero():
    traversal = way()
    panels = picture(traversal, AFFINE, at=(1, 2, 3)).axes
    change = traversal.volumes[:, 0] - traversal.volumes[1, 0]
    for column in range(3):
        got, limits = shown(panels[9 + column])
        np.testing.assert_array_equal(got, change[column, 1].T)
        assert limits == pytest.approx((-np.abs(change).max(), np.abs(change).max()))


def test_slices_cross_in_the_middle_of_the_mask():
    mask = np.zeros(SHAPE, bool)
    mask[2:5, 6:9, 1:4] = True
    traversal = way()
    got, _ = shown(picture(traversal, AFFINE, mask=mask).axes[0])
    np.testing.assert_array_equal(got, traversal.volumes[0, 0, 3].T)


def test_an_overview_has_a_row_a_traversal_and_the_change_from_end_to_end():
    ways = [way(name="z0"), way(name="z1")]
    figure = overview(ways, AFFINE, at=(4, 5, 2))
    panels = figure.axes
    got, _ = shown(panels[7])
    volumes = ways[1].volumes[:, 0]
    np.testing.assert_array_equal(got, (volumes[2] - volumes[0])[:, :, 2].T)
    assert [panels[0].get_ylabel(), panels[4].get_ylabel()] == ["z0", "z1"]


def test_a_png_is_written_once(tmp_path):
    path = write_picture(tmp_path / "a" / "z0.png", picture(way(), AFFINE))
    pixels = image_module.imread(path)
    assert min(pixels.shape[:2]) > 300
    assert pixels[..., :3].std() > 0.05
    with pytest.raises(DataError, match=r"z0.png is there already"):
        write_picture(path, picture(way(), AFFINE))
    write_picture(path, picture(way(), AFFINE), overwrite=True)


def test_a_traversal_that_changes_nothing_can_be_drawn(tmp_path):
    flat = Traversal("z0", (0, 1, 2), "", np.zeros((3, 1)), np.zeros((3, 1, *SHAPE), np.float32))
    write_picture(tmp_path / "flat.png", picture(flat, AFFINE))


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(
        InvalidParameter, match=r"at must be a voxel of a grid of shape \(9, 11, 7\)"
    ):
        picture(way(), AFFINE, at=(9, 0, 0))
    with pytest.raises(ShapeError, match=r"the mask must have the shape \(9, 11, 7\), got \(3,\)"):
        picture(way(), AFFINE, mask=np.ones(3, bool))
    with pytest.raises(ShapeError, match=r"an affine has the shape \(4, 4\)"):
        picture(way(), np.eye(3))
    with pytest.raises(InvalidParameter, match="all of the same number of steps"):
        overview([way(3), way(5)], AFFINE)
    with pytest.raises(InvalidParameter, match="the path of a .png file"):
        write_picture(tmp_path / "z.jpg", picture(way(), AFFINE))


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    imported = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return imported(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        NidlError, match=r"figures need matplotlib: pip install 'nidl-neuro\[figures\]'"
    ):
        picture(way(), AFFINE)
