"""MonaiDecoder: exactly the size asked for, theta unconstrained, MONAI's own networks."""

import random

import pytest
import torch

from nidl_core.errors import InvalidParameter, ShapeError, UnknownParameter
from nidl_monai import MonaiDecoder
from nidl_monai._building import load

MODELS = ["generator", "varautoencoder", "autoencoderkl"]
L = 3
LEVELS = {"channels": [4, 4, 8], "norm_num_groups": 2, "in_channels": 4}
SIZES = [(28, 28), (17, 30), (1, 1), (1, 23), (13, 10, 15), (9, 1, 6), (1, 1, 1)]
_draw = random.Random(0)
SIZES += [tuple(_draw.randint(1, 40) for _ in range(2)) for _ in range(3)]
SIZES += [tuple(_draw.randint(1, 20) for _ in range(3)) for _ in range(3)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("model", MODELS)
def test_theta_has_exactly_the_size_asked_for(model, size):
    args = LEVELS if model == "autoencoderkl" else None
    decoder = MonaiDecoder(L, (2, *size), model=model, model_args=args)
    theta = decoder(torch.randn(1, L))
    theta.sum().backward()
    assert theta.shape == (1, 2, *size)
    assert all(parameter.grad.isfinite().all() for parameter in decoder.parameters())


@pytest.mark.parametrize("model", MODELS)
def test_a_brain_of_91x109x91_comes_out_exactly(model):
    with torch.device("meta"):
        decoder = MonaiDecoder(32, (1, 91, 109, 91), model=model)
        assert decoder(torch.randn(1, 32)).shape == (1, 1, 91, 109, 91)


def test_strides_may_differ_from_axis_to_axis():
    args = {"channels": [8, 4], "strides": [[1, 2, 2], 2]}
    for model in ("generator", "varautoencoder"):
        decoder = MonaiDecoder(L, (1, 5, 18, 17), model=model, model_args=args)
        assert decoder(torch.randn(2, L)).shape == (2, 1, 5, 18, 17)


@pytest.mark.parametrize("model", MODELS)
def test_theta_is_not_bounded(model):
    torch.manual_seed(0)
    decoder = MonaiDecoder(L, (1, 24, 20), model=model)
    last_layers = decoder.net.decode if model == "varautoencoder" else decoder.net
    *_, bias = last_layers.parameters()
    with torch.no_grad():
        for level in (100.0, -100.0):
            bias.fill_(level)
            assert (decoder(torch.randn(4, L)) - level).abs().max() < 30


@pytest.mark.parametrize(
    ("model", "args", "reference"),
    [
        (
            "generator",
            {"channels": [8, 4], "num_res_units": 1},
            lambda: load("generator:Generator")((L,), (8, 5, 4), (4, 2), (2, 2), num_res_units=1),
        ),
        (
            "varautoencoder",
            {"channels": [4, 8]},
            lambda: load("varautoencoder:VarAutoEncoder")(
                2, (1, 20, 16), 2, L, (4, 8), (2, 2), use_sigmoid=False
            ),
        ),
    ],
)
def test_theta_is_what_monai_gives_where_the_size_divides(model, args, reference):
    torch.manual_seed(0)
    net = reference()
    decoder = MonaiDecoder(L, (2, 20, 16), model=model, model_args=args)
    assert decoder.net.load_state_dict(net.state_dict(), strict=False).missing_keys == []
    z = torch.randn(2, L)
    expected = net(z) if model == "generator" else net.decode_forward(z, use_sigmoid=False)
    assert torch.equal(decoder(z), expected)


def test_an_odd_size_is_the_beginning_of_the_next_whole_one():
    torch.manual_seed(0)
    odd = MonaiDecoder(L, (1, 19, 13), model_args={"channels": [8, 4]})
    torch.manual_seed(0)
    whole = MonaiDecoder(L, (1, 20, 16), model_args={"channels": [8, 4]})
    z = torch.randn(2, L)
    assert torch.equal(odd(z), whole(z)[..., :19, :13])


def test_the_encoder_half_is_taken_out():
    decoder = MonaiDecoder(L, (1, 20, 16), model="varautoencoder")
    names = [name for name, _ in decoder.named_parameters()]
    assert all(name.startswith(("net.decode.", "net.decodeL.")) for name in names)
    assert all(parameter.requires_grad for parameter in decoder.parameters())


@pytest.mark.parametrize("model", MODELS)
def test_different_z_give_different_theta_and_zero_gives_a_mean_image(model):
    torch.manual_seed(0)
    decoder = MonaiDecoder(L, (1, 24, 20), model=model)
    theta = decoder(torch.eye(L))
    assert not torch.allclose(theta[0], theta[1])
    assert decoder(torch.zeros(1, L))[0, 0, 4:-4, 4:-4].std() > 1e-3


def test_choices_are_the_models():
    assert MonaiDecoder.choices() == {"model": MODELS}


def test_unknown_models_and_arguments_are_refused_with_the_nearest():
    with pytest.raises(InvalidParameter) as caught:
        MonaiDecoder(L, (1, 9, 9), model="autoencoder")
    assert str(caught.value) == (
        "model must be a name that `nidl show monai` lists, such as 'autoencoderkl', "
        "'varautoencoder', got model='autoencoder'."
    )
    with pytest.raises(UnknownParameter) as caught:
        MonaiDecoder(L, (1, 9, 9), model_args={"stride": [2]})
    assert str(caught.value) == (
        "model_args of generator has no parameter 'stride'. Did you mean 'strides'? It takes: "
        "channels, strides, kernel_size, num_res_units, act, norm, dropout, bias."
    )
    with pytest.raises(UnknownParameter):
        MonaiDecoder(L, (1, 9, 9), model="varautoencoder", model_args={"use_sigmoid": True})


@pytest.mark.parametrize(
    ("model", "args"),
    [
        ("generator", {"channels": [8, 4], "strides": [2]}),
        ("generator", {"strides": [[2, 2, 2]]}),
        ("varautoencoder", {"strides": [2, [2]]}),
        ("varautoencoder", {"channels": [8], "kernel_size": 4}),
        ("autoencoderkl", {"channels": [4, 8], "norm_num_groups": 3}),
        ("varautoencoder", {"channels": []}),
    ],
)
def test_impossible_arguments_are_refused_when_built(model, args):
    with pytest.raises(InvalidParameter, match=rf"^model_args must be values that {model} can"):
        MonaiDecoder(L, (1, 9, 9), model=model, model_args=args)


def test_impossible_shapes_and_latent_dims_are_refused():
    with pytest.raises(ShapeError) as caught:
        MonaiDecoder(L, (2, 7))
    assert str(caught.value) == (
        "monai gives theta of shape (N, P*C, H, W) or (N, P*C, D, H, W), got (N, 2, 7). "
        "Choose mlp, which takes any shape."
    )
    for latent_dim in (0, 2.5, None):
        with pytest.raises(InvalidParameter, match="latent_dim must be an int of at least 1"):
            MonaiDecoder(latent_dim, (1, 9, 9))
