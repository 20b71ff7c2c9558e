"""TimmEncoder: timm's own features, of all of the image, or words that say what would do."""

import os
import pickle
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from nidl_core.errors import InvalidParameter, ShapeError
from nidl_timm import TimmEncoder


def build(shape, model, **params):
    torch.manual_seed(0)
    return TimmEncoder(shape, model, **params)


def own(model, **args):
    """timm's model, from the same random state as `build`."""
    torch.manual_seed(0)
    return timm.create_model(model, num_classes=0, **args)


def fresh(code, folder, **environment):
    """Run `code` in a fresh process with warnings as errors; what it printed."""
    command = [sys.executable, "-W", "error", "-c", code]
    env = {**os.environ, **environment}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# What comes out ---------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_features_of_a_size_that_fits_are_timms_own_from_the_same_seed(model):
    encoder, reference = build((5, 64, 96), model), own(model, in_chans=5)
    x = torch.randn(2, 5, 64, 96)
    assert encoder.padding == (0, 0, 0, 0)
    assert torch.equal(encoder.eval()(x), reference.eval()(x))


def test_padding_is_what_timm_calls_dynamic_padding():
    encoder = build((1, 91, 109), "test_vit").eval()
    reference = own(
        "test_vit", in_chans=1, img_size=(96, 112), dynamic_img_size=True, dynamic_img_pad=True
    )
    reference.load_state_dict(encoder.net.state_dict())
    x = torch.randn(2, 1, 91, 109)
    torch.testing.assert_close(encoder(x), reference.eval()(x))


@pytest.mark.parametrize(
    "model", ["test_convnext", "test_vit_relpos", "test_resnet", "legacy_xception"]
)
def test_no_pixel_is_left_out(model):
    shape = (1, 64, 41)
    encoder = build(shape, model).eval()
    for where in [(0, 0), (0, 40), (63, 0), (63, 40)]:  # the corners
        x = torch.zeros(1, *shape)
        x[..., where[0], where[1]] = torch.nan
        assert encoder(x).isnan().any(), where


def test_timm_by_itself_leaves_out_what_is_padded_here():
    reference = own("test_convnext", in_chans=1).eval()
    x = torch.zeros(1, 1, 63, 63)
    changed = x.clone()
    changed[..., 60:, :] = 1  # behind the last whole patch of 4 pixels
    assert torch.equal(reference(x), reference(changed))
    encoder = build((1, 63, 63), "test_convnext").eval()
    assert encoder.padding == (0, 1, 0, 1)
    assert not torch.equal(encoder(x), encoder(changed))


def test_without_pooling_the_whole_last_map_comes_out():
    pooled, whole = build((1, 64, 96), "test_resnet"), build((1, 64, 96), "test_resnet", pool=False)
    x = torch.randn(2, 1, 64, 96)
    channels = pooled.out_features
    assert whole.out_features == channels * 2 * 3
    h = whole.eval()(x).view(2, channels, 2, 3)
    torch.testing.assert_close(h.mean((2, 3)), pooled.eval()(x))


def test_parameters_that_the_features_do_not_depend_on_are_frozen():
    encoder = build((1, 32, 32), "mobilenetv3_small_050", pool=False)
    frozen = {name for name, p in encoder.net.named_parameters() if not p.requires_grad}
    assert frozen == {"conv_head.weight", "conv_head.bias"}
    pooled = build((1, 32, 32), "mobilenetv3_small_050")
    assert all(p.requires_grad for p in pooled.parameters())


def test_model_args_reach_timm():
    encoder = build((1, 28, 28), "test_vit", model_args={"patch_size": 4, "drop_path_rate": 0.5})
    assert encoder.net.patch_embed.grid_size == (7, 7)
    assert encoder.net.blocks[-1].drop_path1.drop_prob == 0.5


# Training ---------------------------------------------------------------------------------------


def test_a_batch_of_one_trains_where_the_last_map_is_one_pixel():
    encoder = build((1, 32, 32), "resnet18")
    before = encoder.net.layer4[1].bn2.running_mean.clone()
    encoder(torch.randn(1, 1, 32, 32)).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in encoder.parameters())
    assert torch.equal(encoder.net.layer4[1].bn2.running_mean, before)  # one value has no variance
    assert all(m.training for m in encoder.modules())


def test_a_larger_batch_trains_as_in_timm():
    encoder, reference = build((1, 32, 32), "resnet18"), own("resnet18", in_chans=1)
    x = torch.randn(2, 1, 32, 32)
    assert torch.equal(encoder(x), reference(x))
    assert torch.equal(encoder.net.layer4[1].bn2.running_mean, reference.layer4[1].bn2.running_mean)


def test_batch_norm_that_was_frozen_stays_frozen():
    encoder = build((1, 32, 32), "resnet18")
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    encoder(torch.randn(1, 1, 32, 32))
    assert not any(m.training for m in encoder.modules() if isinstance(m, nn.BatchNorm2d))


def test_evaluation_follows_weights_that_timm_would_have_cached():
    encoder, other = build((1, 64, 64), "levit_128s"), TimmEncoder((1, 64, 64), "levit_128s")
    x = torch.randn(2, 1, 64, 64)
    for module in other.modules():
        if hasattr(module, "attention_biases"):
            nn.init.normal_(module.attention_biases)
    encoder.eval()(x)
    encoder.load_state_dict(other.state_dict())
    assert torch.equal(encoder(x), other.eval()(x))
    assert encoder.double()(x.double()).dtype == torch.float64
    assert torch.equal(pickle.loads(pickle.dumps(encoder))(x.double()), encoder(x.double()))


# The random state -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 64, 64), (1, 33, 47)])
def test_building_draws_from_the_random_state_what_timm_draws(shape):
    states = random.getstate(), np.random.get_state()[1].tobytes()
    build(shape, "test_vit")
    after = torch.get_rng_state()
    own("test_vit", in_chans=1, img_size=(64, 64) if shape == (1, 64, 64) else (48, 48))
    assert torch.equal(torch.get_rng_state(), after)
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == states


def test_a_failed_build_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    with pytest.raises(ShapeError):
        TimmEncoder((1, 28, 28), "inception_v3")
    assert torch.equal(torch.get_rng_state(), before)


# Refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (7,),
            "timm takes x of shape (N, C, H, W), got (N, 7). Choose mlp, which takes any shape.",
        ),
        (
            (64, 48),
            "timm takes x of shape (N, C, H, W), got (N, 64, 48). Add a channel axis: x[:, None].",
        ),
        (
            (1, 16, 17, 18),
            "timm takes x of shape (N, C, H, W), got (N, 1, 16, 17, 18). Choose an encoder of "
            "volumes, such as cnn3d or monai.",
        ),
        (
            (1, 0, 8),
            "input_shape takes ints of at least 1, one an axis, got (1, 0, 8). Give the shape of one "
            "sample, x.shape[1:].",
        ),
        (
            (True, 8, 8),
            "input_shape takes ints of at least 1, one an axis, got (True, 8, 8). Give the shape of "
            "one sample, x.shape[1:].",
        ),
        (
            None,
            "input_shape takes ints of at least 1, one an axis, got None. Give the shape of one "
            "sample, x.shape[1:].",
        ),
    ],
)
def test_shapes_of_no_image_are_refused(shape, message):
    with pytest.raises(ShapeError) as caught:
        TimmEncoder(shape)
    assert str(caught.value) == message


def test_a_model_that_takes_squares_gets_one():
    encoder = TimmEncoder((1, 45, 29), "nest_tiny")
    assert encoder.padding == (0, 19, 0, 3)  # to 48 x 48
    assert encoder.eval()(torch.zeros(1, 1, 45, 29)).shape == (1, encoder.out_features)


def test_a_size_that_cannot_fit_is_refused_with_one_that_does():
    with pytest.raises(ShapeError) as caught:
        TimmEncoder((1, 28, 30), "inception_v3")
    text = str(caught.value)
    assert text.startswith(
        "timm's inception_v3 cannot take x of shape (N, 1, 28, 30), as it is or padded to a multiple "
        "of 32 (RuntimeError: "
    )
    assert text.endswith("It takes 96x96: pad or resize x to that.")
    assert TimmEncoder((1, 96, 96), "inception_v3").out_features == 2048


def test_a_model_for_three_channels_says_so():
    with pytest.warns(UserWarning, match="in_chans=1"), pytest.raises(ShapeError) as caught:
        TimmEncoder((1, 64, 64), "csatv2")
    assert str(caught.value).endswith("It takes 3 channels of 64x64: pad or resize x to that.")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"model": "zzz"},
            "model must be one of timm's {n} models (`nidl show timm` lists them), got model='zzz'.",
        ),
        (
            {"model": "test_vit", "model_args": {"img_size": 32}},
            "model_args must be arguments of timm's test_vit itself, without img_size: nidl sets "
            "these, or they lead to weights, got model_args={'img_size': 32}.",
        ),
        (
            {"model": "test_vit", "model_args": {"checkpoint_path": "a.pt"}},
            "model_args must be arguments of timm's test_vit itself, without checkpoint_path: nidl "
            "sets these, or they lead to weights, got model_args={'checkpoint_path': 'a.pt'}.",
        ),
        (
            {"model": "test_vit", "model_args": [1]},
            "model_args must be a dict of arguments of timm's test_vit, or None, got model_args=[1].",
        ),
        (
            {"model": "test_resnet", "model_args": {"dropp_rate": 0.1}},
            "model_args must be arguments that timm's test_resnet can be built with (TypeError: "
            "ResNet.__init__() got an unexpected keyword argument 'dropp_rate'), got "
            "model_args={'dropp_rate': 0.1}.",
        ),
        (
            {"model": "crossvit_tiny_240", "pool": False},
            "pool must be True for this model, whose last features are several tensors, got "
            "pool=False.",
        ),
        ({"pool": 1}, "pool must be True or False, got pool=1."),
        ({"pretrained": "yes"}, "pretrained must be True or False, got pretrained='yes'."),
        (
            {"model": "test_vit_relpos", "pretrained": True},
            "pretrained must be False for 'test_vit_relpos', for which timm has no trained weights, "
            "got pretrained=True.",
        ),
    ],
)
def test_impossible_parameters_are_refused(params, message):
    with pytest.raises(InvalidParameter) as caught:
        TimmEncoder((1, 32, 32), **params)
    assert str(caught.value) == message.replace("{n}", str(len(timm.list_models())))


def test_an_unknown_model_is_told_with_the_nearest_names():
    with pytest.raises(InvalidParameter) as caught:
        TimmEncoder((1, 32, 32), "resnet_18")
    assert str(caught.value).startswith(
        f"model must be one of timm's {len(timm.list_models())} models, such as 'resnet18' or "
    )
    assert str(caught.value).endswith("(`nidl show timm` lists them), got model='resnet_18'.")


@pytest.mark.parametrize("model", ["hf-hub:timm/resnet18", "local-dir:/tmp", "resnet18.nosuch", 18])
def test_names_lead_to_timms_own_models_alone(model):
    with pytest.raises(InvalidParameter, match="model must be one of timm's"):
        TimmEncoder((1, 32, 32), model)


# Names ------------------------------------------------------------------------------------------


def test_choices_are_the_names_that_timm_lists():
    names = TimmEncoder.choices()["model"]
    assert names == timm.list_models()
    assert {"resnet18", "test_vit"} <= set(names)


def test_a_name_may_carry_the_tag_of_its_weights():
    assert build((1, 32, 32), "test_resnet.r160_in1k").net.pretrained_cfg["tag"] == "r160_in1k"


def test_readme_example_prints_what_it_says(capsys):
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    example = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)[0]
    exec(example, {})
    assert capsys.readouterr().out == "64 (0, 3, 0, 5)\n"


# Processes of their own -------------------------------------------------------------------------


def test_importing_the_package_imports_neither_torch_nor_timm(tmp_path):
    code = "import sys, nidl_timm; print([m for m in ('torch', 'timm') if m in sys.modules])"
    assert fresh(code, tmp_path) == "[]\n"


def test_a_torchvision_of_another_build_is_told_as_that(tmp_path):
    package = tmp_path / "torchvision"
    package.mkdir()
    fault = "raise RuntimeError('operator torchvision::nms does not exist')\n"
    (package / "__init__.py").write_text(fault)
    code = """
import nidl_core as nidl
try:
    nidl.encoders.get("timm")
except nidl.NidlError as err:
    print(type(err).__name__, err)
"""
    said = fresh(code, tmp_path, PYTHONPATH=str(tmp_path))
    assert said.startswith("BrokenComponent the encoder 'timm' of nidl-timm ")
    assert "timm needs a torchvision of the same build as torch" in said
    assert "operator torchvision::nms does not exist" in said


def test_weights_that_cannot_be_had_are_told_as_that(tmp_path):
    code = """
import pickle
from nidl_timm import MissingWeights, TimmEncoder
try:
    TimmEncoder((1, 32, 32), "test_resnet", pretrained=True)
except MissingWeights as err:
    print(err.model, err.__cause__ is not None, pickle.loads(pickle.dumps(err)).model)
    print(err)
"""
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    facts, said = fresh(code, tmp_path, **offline).split("\n", 1)
    assert facts == "test_resnet True test_resnet"
    assert said.startswith("the trained weights of timm's 'test_resnet' cannot be had (")
    assert "pass pretrained=False" in said


def test_trained_weights_come_from_the_cache_and_are_adapted_to_the_channels(tmp_path):
    code = """
import os
from pathlib import Path
import safetensors.torch, timm, torch
from nidl_timm import TimmEncoder
trained = timm.create_model("test_resnet")
snapshots = Path(os.environ["HF_HOME"], "hub", "models--timm--test_resnet.r160_in1k")
(snapshots / "refs").mkdir(parents=True)
(snapshots / "refs" / "main").write_text("0" * 40)
(snapshots / "snapshots" / ("0" * 40)).mkdir(parents=True)
safetensors.torch.save_file(
    trained.state_dict(), snapshots / "snapshots" / ("0" * 40) / "model.safetensors"
)
encoder = TimmEncoder((1, 40, 40), "test_resnet", pretrained=True)
ours, theirs = encoder.net.state_dict(), trained.state_dict()
first = "conv1.0.weight"
assert torch.allclose(ours.pop(first), theirs[first].sum(1, keepdim=True))
assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
print(len(ours))
"""
    said = fresh(code, tmp_path, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert int(said) > 50
