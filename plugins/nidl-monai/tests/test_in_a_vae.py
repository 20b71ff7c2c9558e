"""Within an estimator by name: trained, saved, loaded. Needs other plugins, and skips without them."""

import subprocess
import sys

import pytest
import torch

import nidl_core as nidl
from nidl_core.errors import InvalidParameter, ShapeError

NEEDED = [("estimators", "vae"), ("losses", "beta_vae"), ("likelihoods", "normal")]
MISSING = [name for kind, name in NEEDED if name not in nidl.available(kind)]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"{', '.join(MISSING)} of other plugins not installed"
)
CNN3D = pytest.mark.skipif(
    "cnn3d" not in nidl.available("decoders"), reason="cnn3d of nidl-backbones not installed"
)


def monai(model, **params):
    return {"name": "monai", "params": {"model": model, **params}}


def build(encoder, decoder, **params):
    return nidl.build(
        "vae",
        encoder=encoder,
        decoder=decoder,
        likelihood="normal",
        latent_dim=4,
        max_epochs=1,
        random_state=0,
        **params,
    )


@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [
        (monai("resnet10", model_args={"widen_factor": 0.125}), monai("generator")),
        (monai("segresnet", model_args={"init_filters": 4}, pool=False), monai("varautoencoder")),
        pytest.param(
            monai("vit", model_args={"hidden_size": 24, "num_layers": 1, "num_heads": 2}),
            "cnn3d",
            marks=CNN3D,
        ),
    ],
)
def test_a_vae_of_volumes_trains_and_comes_back_from_its_file(tmp_path, encoder, decoder):
    x = torch.randn(9, 1, 16, 20, 18, generator=torch.Generator().manual_seed(0))
    vae = build(encoder, decoder, batch_size=4)  # the last batch is a single row
    vae.fit(x)
    z = vae.transform(x)
    assert z.shape == (9, 4)
    assert z.isfinite().all()
    assert vae.reconstruct(x).shape == x.shape
    vae.save(tmp_path / "model.nidl")
    again = nidl.load(tmp_path / "model.nidl")
    assert torch.equal(again.transform(x), z)
    assert again.get_params()["encoder"]["params"] == encoder["params"]


def test_the_same_seed_gives_the_same_model_whether_monai_was_imported_before_or_not():
    code = (
        "import sys, torch, nidl_core as nidl\n"
        "if sys.argv[1] == 'before': import monai.networks.nets\n"
        "vae = nidl.build('vae', encoder={'name': 'monai', 'params': {'model': 'vit', 'model_args':\n"
        "    {'hidden_size': 24, 'num_layers': 1, 'num_heads': 2}}}, decoder='monai',\n"
        "    likelihood='normal', latent_dim=2, max_epochs=1, random_state=0)\n"
        "x = torch.linspace(-1, 1, 2 * 16 * 12).reshape(2, 1, 16, 12)\n"
        "print(vae.fit(x).transform(x).tolist())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code, when], capture_output=True, text=True, check=True
        ).stdout
        for when in ("before", "when needed")
    }
    assert len(printed) == 1


def test_a_model_that_does_not_exist_is_told_at_fit_with_the_nearest():
    vae = build(monai("resnet11"), monai("generator"))
    with pytest.raises(InvalidParameter, match="'resnet101', 'resnet18', 'resnet10'"):
        vae.fit(torch.randn(4, 1, 16, 20, 18))


def test_data_that_are_too_small_are_refused_in_words():
    vae = build("monai", monai("generator"))
    with pytest.raises(ShapeError, match="densenet121 takes x with axes of at least 29"):
        vae.fit(torch.randn(4, 1, 16, 20, 18))
