"""What is read and set again changes nothing; what authors get wrong is told."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import nidl_core as nidl
from nidl_core.errors import (
    MissingComponents,
    ModelFileError,
    SpecError,
    UnknownParameter,
    WrongTypeComponent,
)
from nidl_core.interfaces import Encoder

README = Path(__file__).parents[2] / "README.md"
SMALL = {"name": "mlp", "params": {"widths": [5]}}


def make(**params):
    given = {"encoder": SMALL, "decoder": SMALL, "latent_dim": 2, "max_epochs": 1, **params}
    return nidl.build("vae", random_state=0, **given)


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)


def test_setting_the_parameters_that_were_read_changes_nothing(x):
    vae = make()
    given = vae.get_params(deep=False)
    vae.set_params(**vae.get_params())
    assert all(vae.get_params(deep=False)[name] is value for name, value in given.items())
    assert vae.fit(x).set_params(beta=7.0).criterion.beta == 7.0
    assert vae.set_params(warm_start=True, encoder__widths=[5]).fit(x)._fitted


def test_a_loaded_model_has_the_parameters_that_were_given(x, tmp_path):
    vae = make().fit(x)
    vae.save(tmp_path / "m.nidl")
    loaded = nidl.load(tmp_path / "m.nidl")
    assert loaded.get_params(deep=False)["likelihood"] is None
    assert type(loaded.set_params(default_dist="laplace").fit(x).likelihood).__name__ == "Laplace"


def test_a_component_handed_to_load_stands_for_its_own_parameter_alone(x, tmp_path):
    class Mine(nidl.encoders.get("mlp")):
        pass

    class Back(nidl.decoders.get("mlp")):
        pass

    with nidl.encoders.temporary("mine", Mine), nidl.decoders.temporary("mine", Back):
        make(encoder="mine", decoder="mine").fit(x).save(tmp_path / "m.nidl")
    with pytest.raises(MissingComponents, match="decoder 'session:mine'") as caught:
        nidl.load(tmp_path / "m.nidl", components={"encoder": Mine})
    assert caught.value.missing == ["decoder 'session:mine'"]


def test_a_checkpoint_is_not_taken_for_a_damaged_model_file(x, tmp_path):
    from lightning.pytorch.callbacks import ModelCheckpoint

    kept = ModelCheckpoint(tmp_path)
    make(callbacks=kept).fit(x)
    with pytest.raises(ModelFileError, match="PyTorch or Lightning checkpoint.*load_state_dict"):
        nidl.load(kept.best_model_path)


class Anything(Encoder):
    def __init__(self, input_shape, **kwargs):
        super().__init__()

    def forward(self, x):
        return x


class Shapeless(Encoder):
    def __init__(self, width=3):
        super().__init__()

    def forward(self, x):
        return x


class Unready(Encoder):
    def __init__(self, input_shape):
        self.out_features = input_shape[0]

    def forward(self, x):
        return x


class UnreadyWithParts(Encoder):
    def __init__(self, input_shape):
        self.out_features = 3
        self.layer = nn.Linear(input_shape[0], 3)

    def forward(self, x):
        return self.layer(x)


def test_an_encoder_with_nameless_parameters_is_refused():
    with pytest.raises(
        WrongTypeComponent, match=r"takes \*\*kwargs: its parameters must have names"
    ):
        make(encoder=Anything)


def test_an_encoder_that_takes_no_shape_is_refused():
    with pytest.raises(SpecError, match="the constructor of Shapeless must take input_shape"):
        make(encoder=Shapeless)


@pytest.mark.parametrize("forgetful", [Unready, UnreadyWithParts])
def test_a_component_that_forgets_its_base_is_told(x, forgetful):
    with pytest.raises(SpecError) as caught:
        make(encoder=forgetful).fit(x)
    name = forgetful.__name__
    assert str(caught.value) == f"{name}: its __init__ must call super().__init__() first."


def test_a_class_in_place_of_a_module_is_told_what_to_do():
    with pytest.raises(WrongTypeComponent, match="hand in an object instead of the class"):
        make(encoder=nn.Flatten)


@pytest.mark.parametrize(
    ("foreign", "ours"),
    [("epochs", "max_epochs"), ("learning_rate", "lr"), ("device", "accelerator")],
)
def test_names_of_other_libraries_lead_to_ours(foreign, ours):
    with pytest.raises(UnknownParameter, match=f"Did you mean '{ours}'"):
        make(**{foreign: 1})


def test_the_readmes_example_of_digits_beats_the_mean_image(tmp_path, monkeypatch):
    """It is one of the first things that a newcomer runs: it must be worth running."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    code = next(block for block in blocks if "load_digits" in block)
    names = {"nidl": nidl}
    exec(compile(code, "README.md", "exec"), names)  # our own file
    x, vae = names["x"], names["vae"]
    train, test = x[:1297], x[1297:]
    scale = vae.likelihood.scale
    error = np.square(test - train.mean(0)).reshape(len(test), -1).sum(1)
    baseline = (-0.5 * error / scale**2 - 32 * np.log(2 * np.pi * scale**2)).mean()

    assert vae.score_samples(test, K=8).mean() > baseline + 50
    assert (
        np.square(vae.reconstruct(test) - test).mean()
        < 0.5 * np.square(test - train.mean(0)).mean()
    )
