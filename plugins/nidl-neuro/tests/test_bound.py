"""Bits per voxel: the bound divided by what it counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.exceptions import NotFittedError

import nidl_core
from nidl_neuro import scans
from nidl_neuro.bound import bits_per_voxel, values_counted
from nidl_neuro.datasets import synthetic_cohort


def fitted(mask: str, cache: Path):
    data = scans([one.image() for one in synthetic_cohort(4, size=16)], {"mask": mask}, cache=cache)
    small = {"name": "mlp", "params": {"widths": [4]}}
    normal = {"name": "normal", "params": {"scale": 0.5}}
    given = {"encoder": small, "decoder": small, "likelihood": normal, "latent_dim": 1}
    try:
        model = nidl_core.build("vae", **given, max_epochs=1, random_state=0)
    except nidl_core.NidlError as err:
        pytest.skip(f"other plugins are not installed: {err}")
    return model, data


@pytest.mark.parametrize("mask", ["computed", "none"])
def test_bits_per_voxel_count_the_voxels_of_the_mask(mask: str, tmp_path: Path) -> None:
    model, data = fitted(mask, tmp_path)
    with pytest.raises(NotFittedError):
        bits_per_voxel(model, data)
    model.fit(data)
    count = 16**3 if mask == "none" else int(data.mask.sum())
    assert values_counted(model) == count
    bits = bits_per_voxel(model, data)
    assert bits == pytest.approx(-model.score(data) / np.log(2) / count, rel=1e-12)
    for weights in model.parameters():
        weights.data.zero_()  # so that p(x | z) = Normal(0, 0.5) and q(z | x) is the prior
    x = data.x[:][:, 0].reshape(4, -1)[:, slice(None) if mask == "none" else data.mask.flatten()]
    assert bits_per_voxel(model, data) == pytest.approx(
        -norm(0, 0.5).logpdf(x).mean() / np.log(2), rel=1e-5
    )
