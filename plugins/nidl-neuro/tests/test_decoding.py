"""Scans through a model, some at a time: p(x | z) as the networks give it, in bounded pieces."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import nidl_core as nidl
from nidl_core.errors import DataError, NidlError, ShapeError
from nidl_neuro import decoding, scans
from nidl_neuro.decoding import as_scans, counted, decoded, fingerprint, posterior

sys.path.insert(0, str(Path(__file__).parent))
from little import cohort, fitted, vae

N = 10


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("decoding")


@pytest.fixture(scope="module")
def little(home):
    return fitted(cohort(home / "cohort", N), home / "cache", max_epochs=3)


def by_hand(model, x):
    """Latents, mean and scale (n, M) from the networks' raw numbers, in numpy."""
    mask = model.data_mask.numpy().ravel()
    with torch.no_grad():
        latents = model.fc_mu(model.encoder(torch.from_numpy(x)))
        theta = model.decoder(latents).numpy()  # (n, 2, *S)
    mean, raw = theta.reshape(len(x), 2, -1)[:, :, mask].transpose(1, 0, 2)
    return latents.numpy(), mean, 0.05 + np.logaddexp(0, raw.astype(np.float64))


def test_moments_are_those_of_the_networks(little):
    model, data = little
    model.eval()
    parts = list(decoded(model, data))
    latents, mean, sd = by_hand(model, data.x[:])
    np.testing.assert_array_equal(np.concatenate([part.row for part in parts]), np.arange(N))
    x = data.x[:].reshape(N, -1)[:, data.mask.numpy().ravel()]
    for name, expected in (("latents", latents), ("mean", mean), ("sd", sd), ("x", x)):
        got = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    z = np.concatenate([part.z for part in parts])
    np.testing.assert_allclose(z, (x - mean) / sd, rtol=1e-3, atol=1e-3)


def test_the_mean_is_the_models_own_reconstruction(little):
    model, data = little
    whole = np.asarray(model.reconstruct(data))
    mean = np.concatenate([part.mean for part in decoded(model, data)])
    np.testing.assert_allclose(
        whole.reshape(N, -1)[:, counted(model).ravel()], mean, rtol=1e-5, atol=1e-6
    )


def test_the_posterior_is_the_encoders(little):
    model, data = little
    mean, sd = posterior(model, data)
    model.eval()
    with torch.no_grad():
        h = model.encoder(torch.from_numpy(data.x[:]))
        np.testing.assert_allclose(mean, model.fc_mu(h), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(sd, np.exp(0.5 * model.fc_logvar(h).numpy()), rtol=1e-5)
    assert mean.shape == sd.shape == (N, 3)


def test_rows_may_be_chosen(little):
    model, data = little
    whole = np.concatenate([part.z for part in decoded(model, data)])
    parts = list(decoded(model, data, [7, 2, 2]))
    np.testing.assert_array_equal(parts[0].row, [7, 2, 2])
    np.testing.assert_allclose(parts[0].z, whole[[7, 2, 2]], rtol=1e-4, atol=1e-5)


def test_no_more_is_read_at_once_than_fits(little, monkeypatch):
    model, data = little
    read = []

    class Spy(type(data.x)):
        def __getitem__(self, index):
            read.append(len(np.arange(N)[index]))
            return super().__getitem__(index)

    monkeypatch.setattr(data.x, "__class__", Spy)
    voxels = counted(model).size
    monkeypatch.setattr(decoding, "_BYTES", 3 * 4 * voxels)
    parts = decoded(model, data)
    assert read == []
    next(parts)
    assert read == [3]
    assert [len(part.row) for part in parts] == [3, 3, 1]
    assert read == [3, 3, 3, 1]
    monkeypatch.setattr(decoding, "_BYTES", 1)  # a scan that is larger: one at a time
    assert [len(part.row) for part in decoded(model, data)] == [1] * N


def test_without_a_mask_all_voxels_count(home):
    model, data = fitted(home / "cohort", home / "cache", {"mask": "none"}, max_epochs=1)
    assert counted(model).all()
    (part, *_) = decoded(model, data)
    assert part.mean.shape[1] == 16**3


def test_the_models_state_stays_as_it_was(little):
    model, data = little
    model.train()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    before = fingerprint(model)
    list(decoded(model, data))
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert fingerprint(model) == before


def test_paths_are_prepared_as_the_fit_was(home):
    how = {"voxel_size": 14, "shape": (12, 14, 12), "intensity": "percentiles"}
    model, data = fitted(home / "cohort", home / "cache", how, max_epochs=1)
    model.save(home / "model.nidl")
    loaded = nidl.load(home / "model.nidl")
    again = as_scans(loaded, str(home / "cohort"), cache=home / "cache")
    assert again.x.shape == data.x.shape
    np.testing.assert_array_equal(again.x[:], data.x[:])
    assert as_scans(loaded, data) is data


def test_scans_that_were_prepared_otherwise_are_refused(little, home):
    model, _ = little
    other = scans(home / "cohort", {"intensity": "none", "mask": None}, cache=home / "cache")
    with pytest.raises(
        DataError,
        match=r"otherwise than those of the fit: mask 'none' instead of 'computed', intensity 'none' "
        r"instead of 'zscore'. Hand in their paths",
    ):
        as_scans(model, other)


def test_a_model_of_arrays_takes_scans_and_no_paths(home, little):
    _, data = little
    model = vae(max_epochs=1).fit(data.x[:])
    assert as_scans(model, data) is data
    with pytest.raises(DataError, match="was not fitted on scans"):
        as_scans(model, str(home / "cohort"))


def test_scans_of_another_shape_are_refused(little, home):
    _, data = little
    model = vae(max_epochs=1).fit(data.x[:][:, :, 2:])
    with pytest.raises(ShapeError, match=r"this model takes data of shape \(N, 1, 14, 16, 16\)"):
        list(decoded(model, data))


def test_what_has_no_latent_space_is_refused(little):
    _, data = little
    with pytest.raises(NidlError, match="a Linear has no encode and no decode and no read"):
        list(decoded(nn.Linear(2, 2), data))
    with pytest.raises(Exception, match="not fitted"):
        list(decoded(vae(), data))


def test_a_mask_is_the_same_wherever_it_was_read_from(home):
    mask = np.zeros((16, 16, 16), bool)
    mask[4:12, 4:11, 5:12] = True
    for name in ("a", "b"):
        np.save(home / f"{name}.npy", mask)
    model, _ = fitted(home / "cohort", home / "cache", {"mask": home / "a.npy"}, max_epochs=1)
    same = scans(home / "cohort", {"mask": home / "b.npy"}, cache=home / "cache")
    assert as_scans(model, same) is same
    mask[4, 4, 5] = False
    other = scans(home / "cohort", {"mask": mask}, cache=home / "cache")
    with pytest.raises(DataError, match="mask a mask that was given instead of a mask"):
        as_scans(model, other)


@pytest.mark.parametrize("spread", ["none", "zero", "infinite"])
def test_a_likelihood_without_a_spread_has_no_z(little, monkeypatch, spread):
    model, data = little

    def decode(z, observed=None):
        two = torch.full((len(z), 1, int(counted(model).sum())), 2.0)
        if spread == "none":
            return torch.distributions.Cauchy(two, torch.ones_like(two))
        if spread == "zero":
            return torch.distributions.Normal(two, torch.zeros_like(two), validate_args=False)
        return torch.distributions.StudentT(torch.full_like(two, 1.5), two)

    monkeypatch.setattr(model, "decode", decode)
    with pytest.raises(DataError, match="no finite mean and standard deviation"):
        list(decoded(model, data))
    (part, *_) = decoded(model, data, needs_sd=False)
    assert (part.mean == 2).all() and (part.sd == 1).all()


def test_a_decoder_without_a_likelihood_has_a_reconstruction_alone(home):
    data = scans(home / "cohort", {"mask": "none"}, cache=home / "cache")
    voxels = 16**3
    decoder = nn.Sequential(nn.Linear(3, voxels), nn.Unflatten(1, (1, 16, 16, 16)))
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(voxels, 4))
    model = vae(encoder=encoder, decoder=decoder, likelihood=None, max_epochs=1).fit(data)
    with pytest.raises(DataError, match="the model has no likelihood"):
        list(decoded(model, data))
    mean = np.concatenate([part.mean for part in decoded(model, data, needs_sd=False)])
    np.testing.assert_allclose(
        mean.reshape(data.x.shape), model.reconstruct(data), rtol=1e-4, atol=1e-5
    )


def test_the_fingerprint_is_of_the_weights(little, home):
    model, data = little
    model.save(home / "same.nidl")
    assert fingerprint(nidl.load(home / "same.nidl")) == fingerprint(model)
    assert fingerprint(vae(max_epochs=1).fit(data)) != fingerprint(model)
