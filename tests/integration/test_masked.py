"""A VAE on data with a mask: positions outside it count for nothing, and come back as 0."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.model_selection import GridSearchCV

import nidl_core as nidl
from nidl_core.data import ArrayDataset
from nidl_core.errors import InvalidParameter, ShapeError, SpecError

N, C, S = 40, 2, (5, 4)
MASK = np.random.default_rng(1).random(S) < 0.4
INSIDE = torch.from_numpy(MASK)
SPEC = {"voxel_size": [2.0, 2.0], "made_by": "a test"}


def data(seed=0, mask=MASK, n=N):
    x = np.random.default_rng(seed).normal(size=(n, C, *S)).astype(np.float32)
    return ArrayDataset(x, spec=SPEC, mask=None if mask is None else torch.from_numpy(mask))


def vae(likelihood="normal", **params):
    mlp = {"name": "mlp", "params": {"widths": [8]}}
    given = {"latent_dim": 3, "max_epochs": 2, "random_state": 0, "batch_size": 16, **params}
    return nidl.build("vae", encoder=mlp, decoder=mlp, likelihood=likelihood, **given)


def normal(**params):
    return {"name": "normal", "params": params}


def test_the_bound_counts_the_voxels_of_the_mask_alone():
    model = vae(normal(scale=0.7), stochastic_transform=False).fit(data())
    x = torch.from_numpy(data(1).x)
    with torch.no_grad():
        q = model.encode(x)
        p = model.decode(q.loc)
        theta = model.decoder(q.loc).numpy()
    assert p.event_shape == (C, MASK.sum())
    expected = stats.norm(theta, 0.7).logpdf(x.numpy())[..., MASK].sum((1, 2))
    np.testing.assert_allclose(p.log_prob(x[..., INSIDE]).numpy(), expected, rtol=1e-4)


def test_what_lies_outside_teaches_the_decoder_nothing():
    model = vae().fit(data())
    theta = model.decoder(torch.zeros(1, 3))
    theta.retain_grad()
    model.likelihood(model._counted(theta)).log_prob(torch.zeros(1, C, MASK.sum())).sum().backward()
    assert bool(theta.grad[..., INSIDE].any())
    assert not bool(theta.grad[..., ~INSIDE].any())


@pytest.mark.parametrize("scale", ["optimal", "shared", "learned", 0.5])
def test_images_come_back_whole_with_0_outside(scale):
    model = vae(normal(scale=scale)).fit(data())
    x = data(1).x
    for image in (model.reconstruct(x), model.inverse_transform(model.transform(x))):
        assert image.shape == x.shape
        assert not image[..., ~MASK].any()
        assert image[..., MASK].all()
    drawn = model.sample(4, seed=0, draw=True)
    assert drawn.shape == (4, C, *S)
    assert not bool(drawn[..., ~INSIDE].any())


def test_the_optimal_scale_is_that_of_the_voxels_that_count():
    model = vae(normal(scale="optimal")).fit(data())
    x = torch.from_numpy(data(1).x)
    with torch.no_grad():
        z = model.train().encode(x).loc
        model.decode(z, observed=x)
        expected = (x - model.decoder(z))[..., INSIDE].square().mean()
    torch.testing.assert_close(model.likelihood.batch_variance, expected)


def test_data_outside_the_support_may_lie_outside_the_mask():
    images = data()
    images.x[:] = images.x > 0
    images.x[..., ~MASK] = -7
    assert np.isfinite(vae("bernoulli").fit(images).score(images))


def test_mask_and_spec_survive_the_file(tmp_path):
    model = vae().fit(data())
    model.save(tmp_path / "model.nidl")
    loaded = nidl.load(tmp_path / "model.nidl")
    assert loaded.data_spec_ == SPEC
    assert torch.equal(loaded.data_mask, torch.from_numpy(MASK))
    x = data(1).x
    assert loaded.score(x) == model.score(x)
    assert np.array_equal(loaded.reconstruct(x), model.reconstruct(x))


def test_the_next_fit_has_the_mask_of_its_own_data(tmp_path):
    model = vae().fit(data())
    model.fit(data(mask=None))
    assert model.data_mask is None
    assert model.reconstruct(data(1).x)[..., ~MASK].any()


def test_score_samples_is_above_the_bound():
    model = vae().fit(data())
    x = data(1).x
    assert model.score_samples(x, K=200).mean() > model.score(x)


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ShapeError, match=r"the mask of the data has shape \(3, 3\), and x is"):
        vae().fit(data(mask=np.ones((3, 3), dtype=bool)))


def test_a_warm_start_goes_on_with_the_same_mask_only():
    model = vae(warm_start=True).fit(data())
    model.fit(data())
    for other in (None, ~MASK):
        with pytest.raises(InvalidParameter, match="False for data with another mask"):
            model.fit(data(mask=other))
        model = vae(warm_start=True).fit(data())


def test_cross_validation_keeps_the_mask_in_its_folds():
    search = GridSearchCV(vae(max_epochs=1), {"latent_dim": [2, 3]}, cv=2, error_score="raise")
    scores = []

    def bound(model, held_out):
        assert model.data_mask.equal(INSIDE)
        assert model.data_spec_ == held_out.spec == SPEC
        scores.append(model.score(held_out))
        return scores[-1]

    search.set_params(scoring=bound).fit(data())
    assert len(scores) == 4
    assert np.isfinite(scores).all()
    assert search.best_estimator_.data_mask.equal(INSIDE)


def handed_in(decoder):
    mlp = {"name": "mlp", "params": {"widths": [8]}}
    return nidl.build(
        "vae", encoder=mlp, decoder=decoder, latent_dim=3, max_epochs=1, random_state=0
    )


def test_a_tensor_of_a_decoder_that_was_handed_in_counts_inside_the_mask_alone():
    decoder = torch.nn.Sequential(torch.nn.Linear(3, C * 20), torch.nn.Unflatten(1, (C, *S)))
    model = handed_in(decoder).fit(data())
    x = torch.from_numpy(data(1).x)
    with torch.no_grad():
        q = model.encode(x)
        inside = model.decoder(q.loc)[..., INSIDE]
        torch.testing.assert_close(model.decode(q.loc), inside)
    back = model.reconstruct(x)
    assert back.shape == x.shape
    torch.testing.assert_close(back[..., INSIDE], inside)
    assert not back[..., ~INSIDE].any()


class Speaks(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(3, C * 20)

    def forward(self, z):
        p = torch.distributions.Normal(self.net(z).view(-1, C, *S), 1.0)
        return torch.distributions.Independent(p, 3)


def test_a_decoder_that_gives_a_distribution_cannot_leave_anything_out():
    with pytest.raises(SpecError, match="gives a distribution of all positions, Independent"):
        handed_in(Speaks()).fit(data())


def test_two_processes_train_it(tmp_path):
    import subprocess
    import sys

    code = """
import sys
import numpy as np, torch, nidl_core as nidl
from nidl_core.data import ArrayDataset
if __name__ == "__main__":
    torch.set_num_threads(1)
    x = np.random.default_rng(0).normal(size=(12, 1, 5, 4)).astype("float32")
    mask = torch.zeros(5, 4, dtype=torch.bool)
    mask[1:3] = True
    mlp = {"name": "mlp", "params": {"widths": [4]}}
    model = nidl.build("vae", encoder=mlp, decoder=mlp, latent_dim=2, max_epochs=1, random_state=0,
                       batch_size=3, strategy="ddp", devices=2, accelerator="cpu")
    model.fit(ArrayDataset(x, mask=mask))
    assert not model.reconstruct(x)[..., 3:, :].any()
"""
    script = tmp_path / "train.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
