"""Shift and scale, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from nidl_neuro.errors import ScanError
from nidl_neuro.intensity import check_varies, scaling

VALUES = np.random.default_rng(0).gamma(3, 100, size=501).astype(np.float32)


def test_zscore_is_mean_and_deviation() -> None:
    wide = VALUES.astype(np.float64)
    assert scaling(VALUES, "zscore", "a") == pytest.approx((wide.mean(), wide.std()), rel=1e-12)


def test_percentiles_bring_the_1st_to_0_and_the_99th_to_1() -> None:
    shift, scale = scaling(VALUES, "percentiles", "a")
    scaled = (VALUES.astype(np.float64) - shift) / scale
    np.testing.assert_allclose(np.percentile(scaled, [1, 99]), [0, 1], atol=1e-6)
    assert scaled.max() > 1


def test_none_changes_nothing() -> None:
    assert scaling(VALUES, "none", "a") == (0.0, 1.0)
    assert scaling(np.full(5, 0.1, np.float32), "none", "a") == (0.0, 1.0)


@pytest.mark.parametrize("how", ["zscore", "percentiles"])
def test_a_constant_has_no_scale(how: str) -> None:
    # 0.1 has no exact mean: a computed deviation would be tiny, not 0
    with pytest.raises(ScanError) as error:
        scaling(np.full(12345, 0.1, np.float32), how, "sub-01.nii.gz")
    assert str(error.value) == (
        "sub-01.nii.gz: the 12345 voxels of the mask all have the value 0.1, which leaves no scale "
        "to normalise by. Leave the scan out, or choose intensity='none'."
    )


def test_a_constant_image_is_told_before_its_mask() -> None:
    check_varies(np.zeros((2, 3, 4)), "none", "a")
    with pytest.raises(ScanError) as error:
        check_varies(np.zeros((2, 3, 4)), "zscore", "sub-01.nii.gz")
    assert str(error.value) == (
        "sub-01.nii.gz: the image is constant, all its voxels have the value 0, which leaves no "
        "scale to normalise by. Leave the scan out, or choose intensity='none'."
    )


def test_equal_percentiles_have_no_scale() -> None:
    values = np.zeros(1000)
    values[0] = 5
    with pytest.raises(ScanError) as error:
        scaling(values, "percentiles", "sub-01.nii.gz")
    assert str(error.value) == (
        "sub-01.nii.gz: its 1st and 99th percentile are both 0, which leaves no scale to normalise "
        "by. Give a mask of the brain, or choose intensity='zscore'."
    )
