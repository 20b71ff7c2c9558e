"""MonaiEncoder: the features are MONAI's own, any size works or is refused in words."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nidl_core.errors import InvalidParameter, ShapeError, UnknownParameter
from nidl_monai import MonaiEncoder
from nidl_monai._building import load
from nidl_monai._fitting import trial

WIDTHS = {  # of the last map, by the papers that MONAI's classes cite
    "densenet121": 1024,
    "densenet169": 1664,
    "densenet201": 1920,
    "densenet264": 2688,
    "resnet10": 512,
    "resnet18": 512,
    "resnet34": 512,
    "resnet50": 2048,
    "resnet101": 2048,
    "resnet152": 2048,
    "resnet200": 2048,
    "senet154": 2048,
    "seresnet50": 2048,
    "seresnet101": 2048,
    "seresnet152": 2048,
    "seresnext50": 2048,
    "seresnext101": 2048,
    "efficientnet-b0": 1280,
    "efficientnet-b1": 1280,
    "efficientnet-b2": 1408,
    "efficientnet-b3": 1536,
    "efficientnet-b4": 1792,
    "efficientnet-b5": 2048,
    "efficientnet-b6": 2304,
    "efficientnet-b7": 2560,
    "efficientnet-b8": 2816,
    "efficientnet-l2": 5504,
    "vit": 768,
    "swinvit": 384,
    "segresnet": 256,
    "autoencoderkl": 64,
}
VIT = {"hidden_size": 24, "num_layers": 2, "num_heads": 2, "mlp_dim": 8}
SWIN = {"embed_dim": 6, "depths": [2, 1, 1, 1], "num_heads": [1, 2, 3, 3]}
LEVELS = {"channels": [4, 8], "norm_num_groups": 2}


def pooled(h):
    return h.flatten(2).mean(2)


def headless(net, head):
    setattr(net, head, nn.Identity())
    return net


def densenet(dims):
    net = load("densenet:DenseNet121")(dims, 2, 5, block_config=(1, 1))
    net.class_layers.out = nn.Identity()
    return net


# What MONAI's own forward gives, its last linear layer left out.
REFERENCES = {
    "densenet121": ({"block_config": [1, 1]}, densenet),
    "resnet10": (
        {},
        lambda d: load("resnet:resnet10")(spatial_dims=d, n_input_channels=2, feed_forward=False),
    ),
    "seresnet50": (
        {"layers": [1, 1, 1, 1]},
        lambda d: headless(
            load("senet:SEResNet50")(spatial_dims=d, in_channels=2, layers=(1, 1, 1, 1)),
            "last_linear",
        ),
    ),
    "efficientnet-b0": (
        {},
        lambda d: headless(
            load("efficientnet:EfficientNetBN")(
                "efficientnet-b0", False, spatial_dims=d, in_channels=2
            ),
            "_fc",
        ),
    ),
    "vit": (
        VIT,
        lambda d: load("vit:ViT")(2, (33, 40, 35)[:d], (11, 8, 7)[:d], spatial_dims=d, **VIT),
    ),
    "swinvit": (
        SWIN,
        lambda d: load("swin_unetr:SwinTransformer")(
            2, window_size=(7,) * d, patch_size=(2,) * d, spatial_dims=d, **SWIN
        ),
    ),
    "segresnet": ({"init_filters": 4}, lambda d: load("segresnet_ds:SegResEncoder")(d, 4, 2)),
    "autoencoder": (
        {"channels": [4, 8], "num_res_units": 1},
        lambda d: load("autoencoder:AutoEncoder")(d, 2, 1, (4, 8), (2, 2), num_res_units=1),
    ),
    "autoencoderkl": (
        LEVELS,
        lambda d: load("autoencoderkl:Encoder")(d, 2, (4, 8), 64, (2, 2), 2, 1e-6, (False, False)),
    ),
    "regressor": (
        {"channels": [4, 8]},
        lambda d: load("regressor:Regressor")((2, *(33, 40, 35)[:d]), (1,), (4, 8), (2, 2)),
    ),
}
READ = {
    "vit": lambda net, x: net(x)[0].mean(1),
    "swinvit": lambda net, x: pooled(net(x)[-1]),
    "segresnet": lambda net, x: pooled(net(x)[-1]),
    "autoencoder": lambda net, x: pooled(net.encode(x)),
    "autoencoderkl": lambda net, x: pooled(net(x)),
    "regressor": lambda net, x: pooled(net.net(x)),
}


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("model", REFERENCES)
def test_features_are_those_of_monai_in_front_of_its_head(model, dims):
    args, reference = REFERENCES[model]
    if model == "vit":
        args = {**args, "patch_size": [11, 8, 7][:dims]}
    torch.manual_seed(0)
    net = reference(dims).eval()
    shape = (2, *(33, 40, 35)[:dims])
    encoder = MonaiEncoder(shape, model=model, model_args=args).eval()
    left_out = encoder.net.load_state_dict(net.state_dict(), strict=False)
    assert left_out.missing_keys == []
    x = torch.randn(2, *shape)
    with torch.no_grad():
        expected = READ.get(model, lambda net, x: net(x))(net, x)
        torch.testing.assert_close(encoder(x), expected)


@pytest.mark.parametrize("model", WIDTHS)
def test_every_network_is_built_for_volumes_with_the_width_of_its_paper(model):
    # Without memory for weights, where MONAI can do that.
    with torch.device("cpu" if model == "swinvit" else "meta"):
        encoder = MonaiEncoder((3, 64, 48, 50), model=model)
    assert encoder.out_features == WIDTHS[model]
    assert all(parameter.requires_grad for parameter in encoder.parameters())


def test_the_table_above_and_two_that_depend_on_the_size_are_all_there_is():
    names = MonaiEncoder.choices()["model"]
    assert sorted(names) == sorted([*WIDTHS, "autoencoder", "regressor"])
    assert json.loads(json.dumps(names)) == names


@pytest.mark.parametrize("model", ["autoencoder", "regressor"])
@pytest.mark.parametrize(
    ("size", "width"), [((28, 28), 64), ((200, 30), 256), ((16, 9, 5), 32), ((91, 109, 91), 128)]
)
def test_stages_without_channels_bring_the_longest_axis_to_seven(model, size, width):
    with torch.device("meta"):
        assert MonaiEncoder((1, *size), model=model).out_features == width
        whole = MonaiEncoder((1, *size), model=model, pool=False)
    stages = {64: 2, 256: 5, 32: 2, 128: 4}[width]
    positions = 1
    for axis in size:
        positions *= -(-axis // 2**stages)
    assert whole.out_features == width * positions


@pytest.mark.parametrize(("model", "args"), [("resnet10", {}), ("vit", VIT), ("swinvit", SWIN)])
def test_without_pooling_the_features_are_the_whole_map(model, args):
    args = {**args, "patch_size": [4, 4]} if model == "vit" else args
    x = torch.randn(2, 1, 20, 33)
    torch.manual_seed(0)
    mean = MonaiEncoder((1, 20, 33), model=model, model_args=args).eval()
    torch.manual_seed(0)
    whole = MonaiEncoder((1, 20, 33), model=model, model_args=args, pool=False).eval()
    h = whole(x)
    assert h.shape == (2, whole.out_features)
    assert whole.out_features > mean.out_features
    torch.testing.assert_close(h.reshape(2, mean.out_features, -1).mean(2), mean(x))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (13, 1, 4), (1, 1, 1)])
@pytest.mark.parametrize(
    ("model", "args"),
    [("resnet10", {"widen_factor": 0.1}), ("swinvit", SWIN), ("vit", VIT), ("segresnet", {})],
)
def test_networks_without_a_smallest_size_train_on_one_sample_of_any(model, args, size):
    encoder = MonaiEncoder((1, *size), model=model, model_args=args)
    h = encoder(torch.randn(1, 1, *size))
    h.sum().backward()
    assert h.shape == (1, encoder.out_features)
    assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters())


def test_vit_appends_zeros_up_to_whole_patches():
    x = torch.randn(2, 1, 17, 30)
    args = {**VIT, "patch_size": 8}
    torch.manual_seed(0)
    encoder = MonaiEncoder((1, 17, 30), model="vit", model_args=args)
    torch.manual_seed(0)
    whole = MonaiEncoder((1, 24, 32), model="vit", model_args=args)
    torch.testing.assert_close(encoder(x), whole(F.pad(x, (0, 2, 0, 7))))


@pytest.mark.parametrize(
    ("model", "shape", "least"),
    [
        ("densenet121", (1, 28, 28), 29),
        ("densenet121", (2, 64, 20, 64), 29),
        ("efficientnet-b0", (3, 17, 30), 32),
        ("autoencoderkl", (1, 7, 9), 8),
    ],
)
def test_too_small_a_size_is_refused_with_the_smallest_that_fits(model, shape, least):
    with torch.device("meta"):
        with pytest.raises(ShapeError) as caught:
            MonaiEncoder(shape, model=model)
        got = ", ".join(["N", *map(str, shape)])
        assert str(caught.value) == (
            f"{model} takes x with axes of at least {least}, got ({got}). Choose a network with "
            "fewer stages, such as 'resnet10' or 'swinvit', which take any size, or pad x."
        )
        MonaiEncoder((1, *[least] * (len(shape) - 1)), model=model)
        with pytest.raises(ShapeError):
            MonaiEncoder((1, *[least - 1] * (len(shape) - 1)), model=model)


def test_instance_norm_of_one_voxel_is_refused_when_built_and_not_in_training():
    args = {"channels": [4, 4, 4]}
    with pytest.raises(ShapeError, match="autoencoder takes x with axes of at least 9"):
        MonaiEncoder((1, 8, 8), model="autoencoder", model_args=args)
    encoder = MonaiEncoder((1, 9, 9), model="autoencoder", model_args=args)
    assert encoder(torch.randn(1, 1, 9, 9)).shape == (1, 4)


@pytest.mark.parametrize(
    ("shape", "end"),
    [
        ((7,), "got (N, 7). Choose mlp, which takes any shape."),
        ((28, 30), "got (N, 28, 30). Add a channel axis: x[:, None]."),
        ((1, 9, 9, 9, 5), "got (N, 1, 9, 9, 9, 5). Choose mlp, which takes any shape."),
    ],
)
def test_wrong_rank_is_refused_with_what_would_fit(shape, end):
    with pytest.raises(ShapeError) as caught:
        MonaiEncoder(shape)
    assert str(caught.value) == f"monai takes x of shape (N, C, H, W) or (N, C, D, H, W), {end}"


@pytest.mark.parametrize("shape", [(1, 0, 9), (True, 8, 9), (1, 8.5, 9), None])
def test_what_is_no_shape_is_refused(shape):
    with pytest.raises(ShapeError) as caught:
        MonaiEncoder(shape)
    told = f"input_shape takes ints of at least 1, one an axis, got {shape!r}. "
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    ("model", "near"),
    [
        ("resnet11", "'resnet101', 'resnet18', 'resnet10'"),
        ("DenseNet-121", "'densenet121', 'densenet201', 'densenet264'"),
        ("SwinViT2", "'swinvit'"),
    ],
)
def test_unknown_model_is_refused_with_the_nearest_names(model, near):
    with pytest.raises(InvalidParameter) as caught:
        MonaiEncoder((1, 32, 32), model=model)
    assert str(caught.value) == (
        f"model must be a name that `nidl show monai` lists, such as {near}, got model={model!r}."
    )


def test_unknown_argument_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownParameter) as caught:
        MonaiEncoder((1, 32, 32), model_args={"growthrate": 8})
    assert str(caught.value) == (
        "model_args of densenet121 has no parameter 'growthrate'. Did you mean 'growth_rate'? It "
        "takes: init_features, growth_rate, block_config, bn_size, act, norm, dropout_prob."
    )


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("densenet121", "pretrained"),
        ("densenet121", "in_channels"),
        ("resnet10", "layers"),
        ("efficientnet-b0", "pretrained"),
        ("vit", "img_size"),
        ("swinvit", "norm_layer"),
    ],
)
def test_what_nidl_fills_in_or_what_downloads_is_no_argument(model, name):
    with pytest.raises(UnknownParameter) as caught:
        MonaiEncoder((1, 32, 32), model=model, model_args={name: 1})
    assert name not in caught.value.accepted


def test_values_that_monai_refuses_are_told_with_its_reason():
    with pytest.raises(InvalidParameter) as caught:
        MonaiEncoder((1, 32, 32), model="vit", model_args={"hidden_size": 10, "num_heads": 4})
    assert str(caught.value).startswith(
        "model_args must be values that vit can be built with (Value"
    )
    assert "hidden_size should be divisible by num_heads" in str(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(
    ("model", "args"),
    [
        ("vit", {"patch_size": 0}),
        ("vit", {"patch_size": [4, 4, 4]}),
        ("swinvit", {**SWIN, "num_heads": [4, 4, 4, 4]}),
        ("swinvit", {"window_size": 7}),
        ("regressor", {"channels": [4, 8], "strides": [2]}),
        ("autoencoder", {"channels": 4}),
        ("segresnet", {"norm": "nonsense"}),
    ],
)
def test_impossible_arguments_are_refused_when_built(model, args):
    with pytest.raises(InvalidParameter, match=rf"^model_args must be values that {model} can"):
        MonaiEncoder((1, 32, 32), model=model, model_args=args)


@pytest.mark.parametrize("model_args", [["a"], "block_config", {1: 2}])
def test_arguments_that_are_no_dict_are_refused(model_args):
    with pytest.raises(InvalidParameter, match="a dict of arguments of densenet121, or None"):
        MonaiEncoder((1, 32, 32), model_args=model_args)


def test_pool_is_true_or_false():
    with pytest.raises(InvalidParameter, match="pool must be True or False, got pool='max'"):
        MonaiEncoder((1, 32, 32), pool="max")


def test_arguments_come_as_plain_data_and_are_left_alone():
    args = {"norm": ["group", {"num_groups": 2}], "init_filters": 4, "blocks_down": [1, 1]}
    before = json.dumps(args)
    encoder = MonaiEncoder((1, 12, 9), model="segresnet", model_args=args)
    groups = {m.num_groups for m in encoder.modules() if isinstance(m, nn.GroupNorm)}
    assert groups == {2}
    assert json.dumps(args) == before


def test_layers_that_features_do_not_depend_on_are_taken_out():
    encoder = MonaiEncoder((1, 32, 32), model="autoencoder", model_args={"channels": [4, 8]})
    names = [name for name, _ in encoder.named_parameters()]
    assert names
    assert all(name.startswith("net.encode.") for name in names)
    linear = [m for m in MonaiEncoder((1, 32, 32)).modules() if isinstance(m, nn.Linear)]
    assert linear == []
    vit = MonaiEncoder((1, 32, 32), model="vit", model_args=VIT)
    assert not any("cross" in name for name, _ in vit.named_parameters())


def test_finding_the_features_draws_no_random_number():
    torch.manual_seed(0)
    load("resnet:resnet10")(spatial_dims=2, n_input_channels=1, feed_forward=False)
    after = torch.get_rng_state()
    torch.manual_seed(0)
    MonaiEncoder((1, 32, 32), model="resnet10")
    assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.parametrize(
    ("model", "args"),
    [("resnet10", {}), ("efficientnet-b0", {}), ("vit", {**VIT, "dropout_rate": 0.5})],
)
def test_a_trial_changes_no_state_whatever_the_network_does_in_training(model, args):
    encoder = MonaiEncoder((1, 33, 33), model=model, model_args=args)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    random_state = torch.get_rng_state()
    shape, _ = trial(encoder, (1, 33, 33))
    assert shape == (encoder.out_features,)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_it_is_built_where_gradients_are_off():
    with torch.no_grad():
        encoder = MonaiEncoder((1, 16, 16), model="vit", model_args=VIT)
    encoder(torch.randn(2, 1, 16, 16)).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


@pytest.mark.parametrize(
    ("model", "args"), [("resnet10", {"widen_factor": 0.1}), ("vit", VIT), ("swinvit", SWIN)]
)
def test_it_runs_in_half_precision_and_under_autocast(model, args):
    encoder = MonaiEncoder((1, 17, 12, 14), model=model, model_args=args)
    x = torch.randn(2, 1, 17, 12, 14)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        h = encoder(x)
    h.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters())
    assert encoder.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


def test_attention_for_a_single_sample_is_compiled_too():
    args = {**LEVELS, "attention_levels": [True, True]}
    encoder = MonaiEncoder((1, 9, 8), model="autoencoderkl", model_args=args)
    x = torch.randn(1, 1, 9, 8)
    torch.compiler.reset()
    compiled = torch.compile(encoder, backend="aot_eager")
    torch.testing.assert_close(compiled(x), encoder(x))
