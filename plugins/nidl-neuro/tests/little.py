"""A little cohort and a little model, for the tests of what comes out."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

import nidl_core as nidl
from nidl_neuro import scans
from nidl_neuro.datasets import synthetic_cohort

SIZE = 16


def cohort(folder, n, **causes):
    """A BIDS folder of n synthetic scans of 16³ voxels."""
    return synthetic_cohort(n, size=SIZE, **causes).write(folder)


def vae(**params):
    """A VAE of three latents with a scale for each voxel, not yet fitted."""
    given = {
        "encoder": {"name": "mlp", "params": {"widths": [16], "activation": "leaky_relu"}},
        "decoder": {"name": "mlp", "params": {"widths": [16]}},
        "likelihood": {"name": "normal", "params": {"scale": "learned", "min_scale": 0.05}},
        "latent_dim": 3,
        "max_epochs": 40,
        "lr": 1e-3,
        "batch_size": 8,
        "random_state": 0,
        "enable_progress_bar": False,
        **params,
    }
    try:
        return nidl.build("vae", **given)
    except nidl.NidlError as err:
        pytest.skip(f"other plugins are not installed: {err}")


def with_blob(image, centre, radius=2, more=3.0):
    """The image, brighter by `more` standard deviations in a ball (voxels), and the ball."""
    voxels = image.get_fdata()
    grid = np.indices(voxels.shape).transpose(1, 2, 3, 0)
    ball = ((grid - centre) ** 2).sum(axis=-1) <= radius**2
    spread = voxels.std()
    changed = voxels + more * spread * ball
    made = nibabel.Nifti1Image(changed.astype(np.float32), image.affine)
    return made, ball


PREPARATION = {"mask": "computed"}  # the synthetic scans have noise all around


def fitted(source, cache, preparation=PREPARATION, **params):
    """A model of the scans in a folder or list, and the scans."""
    data = scans(source, preparation, cache=cache)
    return vae(**params).fit(data), data
