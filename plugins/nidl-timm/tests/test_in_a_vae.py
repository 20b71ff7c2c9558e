"""The encoder by name in a VAE, with the plugins that come with nidl beside it."""

import numpy as np
import pytest
import timm
import torch

import nidl_core as nidl
from nidl_core.errors import MissingComponents, UnknownComponent
from nidl_timm import MissingWeights

NEEDED = {"estimators": "vae", "decoders": "cnn2d", "likelihoods": "normal"}
MISSING = [name for kind, name in NEEDED.items() if name not in nidl.available(kind)]
pytestmark = pytest.mark.skipif(
    bool(MISSING),
    reason=f"needs {', '.join(MISSING)}: install nidl-vae, nidl-backbones, nidl-likelihoods",
)


def vae(model, **params):
    return nidl.build(
        "vae",
        encoder={"name": "timm", "params": {"model": model}},
        decoder={"name": "cnn2d", "params": {"widths": [8, 4]}},
        likelihood="normal",
        latent_dim=4,
        random_state=0,
        **{"max_epochs": 1, **params},
    )


def images(n, shape, seed=0):
    return np.random.default_rng(seed).random((n, *shape)).astype(np.float32)


@pytest.mark.parametrize("model", ["test_resnet", "test_vit", "levit_128s"])
def test_a_vae_is_trained_saved_and_loaded(tmp_path, model):
    x = images(12, (3, 32, 32))
    fitted = vae(model).fit(x)
    fitted.save(tmp_path / "model.nidl")
    loaded = nidl.load(tmp_path / "model.nidl")
    z = fitted.transform(x)
    assert z.shape == (12, 4)
    assert np.isfinite(z).all()
    assert np.array_equal(loaded.transform(x), z)
    assert np.array_equal(loaded.reconstruct(x), fitted.reconstruct(x))


def test_the_last_batch_may_be_one_image():
    x = images(5, (1, 28, 28))  # resnet18 ends in one pixel, where batch norm wants two images
    fitted = vae("resnet18", batch_size=4).fit(x)
    assert np.isfinite(fitted.transform(x)).all()


def test_training_follows_the_seed_alone():
    x = images(8, (2, 33, 47))
    weights = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        weights.append(vae("test_efficientnet").fit(x).state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_the_encoder_learns():
    rng = np.random.default_rng(0)
    side = np.arange(64) % 2  # dark above or dark below
    x = rng.normal(scale=0.1, size=(64, 1, 32, 32)).astype(np.float32)
    x[side == 0, :, :16] += 1
    x[side == 1, :, 16:] += 1
    fitted = vae(
        "test_resnet", max_epochs=15, lr=3e-3, batch_size=16, stochastic_transform=False
    ).fit(x)
    between = np.abs(np.corrcoef(np.c_[fitted.transform(x), side].T)[-1, :-1])
    assert between.max() > 0.9


def test_pool_and_model_are_reached_as_parameters():
    model = vae("test_resnet").set_params(encoder__pool=False, encoder__model="test_convnext")
    fitted = model.fit(images(4, (1, 64, 32)))
    assert fitted.fc_mu.in_features == fitted.encoder.out_features == 64 * 2


def test_a_model_saved_with_trained_weights_is_loaded_where_there_are_none(tmp_path, monkeypatch):
    create, path, x = timm.create_model, tmp_path / "model.nidl", images(4, (3, 32, 32))

    def online(model, pretrained, **given):
        return create(model, **given)

    def offline(model, pretrained, **given):
        if pretrained:
            raise OSError("no network")
        return create(model, **given)

    monkeypatch.setattr(timm, "create_model", online)
    fitted = vae("test_resnet").set_params(encoder__pretrained=True).fit(x)
    fitted.save(path)
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(MissingWeights, match="components="):
        nidl.load(path)
    untrained = {"name": "timm", "params": {"model": "test_resnet"}}
    loaded = nidl.load(path, components={"encoder": untrained})
    assert np.array_equal(loaded.transform(x), fitted.transform(x))


def test_without_the_plugin_a_model_file_says_what_to_install(tmp_path, monkeypatch):
    path = tmp_path / "model.nidl"
    vae("test_resnet").fit(images(4, (1, 32, 32))).save(path)

    def gone(name):
        raise UnknownComponent(kind="encoders", name=name)

    monkeypatch.setattr(nidl.encoders, "entry", gone)
    with pytest.raises(
        MissingComponents, match="needs encoder 'nidl-timm:timm'.*pip install 'nidl-timm>="
    ):
        nidl.load(path)
