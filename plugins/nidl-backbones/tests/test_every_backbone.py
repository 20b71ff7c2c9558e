"""What all six components promise alike."""

import doctest
import importlib
import inspect
import json
import pickle
import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
from torch import nn

from nidl_backbones import (
    CNN2dDecoder,
    CNN2dEncoder,
    CNN3dDecoder,
    CNN3dEncoder,
    MLPDecoder,
    MLPEncoder,
)
from nidl_core.errors import InvalidParameter, ShapeError
from nidl_core.interfaces import Decoder, Encoder

L = 3
SHAPES = {
    MLPEncoder: [(2, 6, 5), (7,)],
    MLPDecoder: [(2, 6, 5), (7,)],
    CNN2dEncoder: [(2, 9, 6)],
    CNN2dDecoder: [(2, 9, 6)],
    CNN3dEncoder: [(2, 5, 6, 7)],
    CNN3dDecoder: [(2, 5, 6, 7)],
}
CASES = [
    pytest.param(cls, shape, id=f"{cls.__name__}-{shape}")
    for cls, shapes in SHAPES.items()
    for shape in shapes
]
LINEAR = (nn.Linear, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
ACTIVATIONS = ["elu", "gelu", "leaky_relu", "relu", "silu", "tanh"]
every_case = pytest.mark.parametrize(("cls", "shape"), CASES)


def build(cls, shape, **params):
    torch.manual_seed(0)
    return cls(shape, **params) if issubclass(cls, Encoder) else cls(L, shape, **params)


def batch(cls, shape, n, dtype=None):
    draw = torch.Generator().manual_seed(1)
    size = (n, *shape) if issubclass(cls, Encoder) else (n, L)
    return torch.randn(size, generator=draw, dtype=dtype)


@every_case
@pytest.mark.parametrize("n", [1, 4])
def test_output_has_the_promised_shape_for_one_and_more(cls, shape, n):
    net = build(cls, shape)
    expected = (net.out_features,) if issubclass(cls, Encoder) else shape
    assert net(batch(cls, shape, n)).shape == (n, *expected)


@every_case
@pytest.mark.parametrize("normalization", ["batch", "group", "layer", None])
def test_every_parameter_gets_a_finite_gradient(cls, shape, normalization):
    net = build(cls, shape, normalization=normalization, activation="silu")
    net(batch(cls, shape, 4)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_output_follows_the_dtype(cls, shape, dtype):
    net = build(cls, shape).to(dtype)
    assert net(batch(cls, shape, 2, dtype)).dtype == dtype


@every_case
def test_output_follows_the_device(cls, shape):
    net = build(cls, shape).to("meta")
    assert net(batch(cls, shape, 2).to("meta")).device.type == "meta"


@every_case
def test_same_seed_same_weights(cls, shape):
    first, second = build(cls, shape).state_dict(), build(cls, shape).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    torch.manual_seed(1)
    other = cls(shape) if issubclass(cls, Encoder) else cls(L, shape)
    assert any(not torch.equal(first[name], w) for name, w in other.state_dict().items())


@every_case
def test_dropout_acts_in_training_only(cls, shape):
    net, x = build(cls, shape, dropout=0.5), batch(cls, shape, 4)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))
    plain = build(cls, shape).eval()  # the same seed: dropout must not change the weights
    assert torch.equal(net(x), plain(x))


@every_case
@pytest.mark.parametrize("normalization", ["group", "layer", None])
def test_samples_do_not_see_each_other(cls, shape, normalization):
    net, x = build(cls, shape, normalization=normalization), batch(cls, shape, 4)
    torch.testing.assert_close(net(x)[2:3], net(x[2:3]), rtol=1e-4, atol=1e-5)


@every_case
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_leaves_its_input_alone(cls, shape, activation):
    net, x = build(cls, shape, activation=activation), batch(cls, shape, 2)
    before = x.clone()
    net(x)
    assert torch.equal(x, before)


@every_case
def test_activation_follows_every_hidden_layer(cls, shape):
    net = build(cls, shape, activation="elu")
    linear = [m for m in net.modules() if isinstance(m, LINEAR)]
    hidden = len(linear) - issubclass(cls, Decoder)  # the last map of a decoder stays linear
    assert sum(isinstance(m, nn.ELU) for m in net.modules()) == hidden > 0
    assert not any(isinstance(m, nn.ReLU) for m in net.modules())


@every_case
def test_state_dict_and_pickle_give_the_same_net(cls, shape):
    net, x = build(cls, shape, normalization="batch"), batch(cls, shape, 4)
    net(x)  # moves the running statistics, which must travel too
    net.eval()
    torch.manual_seed(7)
    fresh = cls(shape, normalization="batch") if issubclass(cls, Encoder) else None
    fresh = fresh or cls(L, shape, normalization="batch")
    fresh.load_state_dict(net.state_dict(), strict=True)
    assert torch.equal(fresh.eval()(x), net(x))
    assert torch.equal(pickle.loads(pickle.dumps(net))(x), net(x))


@pytest.mark.parametrize(
    ("cls", "shape"), [(CNN2dEncoder, (1, 9, 6)), (CNN2dDecoder, (1, 9, 6)), (MLPDecoder, (1, 6))]
)
def test_compiled_agrees_with_eager(cls, shape):
    net, x = build(cls, shape), batch(cls, shape, 3)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), net(x))


@every_case
def test_defaults_are_plain_data_and_no_parameter_is_hidden(cls, shape):
    parameters = list(inspect.signature(cls).parameters.values())
    kinds = {parameter.kind for parameter in parameters}
    assert kinds == {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    again = json.loads(json.dumps(defaults))
    build(cls, shape, **again)
    assert {"widths", "activation", "normalization", "dropout"} <= set(again)


@every_case
@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"activation": "bar"},
            "activation must be one of 'elu', 'gelu', 'leaky_relu', 'relu', 'silu', 'tanh', "
            "got activation='bar'.",
        ),
        (
            {"normalization": "foo"},
            "normalization must be one of 'batch', 'group', 'instance', 'layer' or None, "
            "got normalization='foo'.",
        ),
        ({"dropout": 1.5}, "dropout must be a number from 0 to below 1, got dropout=1.5."),
        ({"dropout": 1.0}, "dropout must be a number from 0 to below 1, got dropout=1.0."),
        ({"widths": [0]}, "widths must be a list of ints of at least 1, got widths=[0]."),
        ({"widths": [8.0]}, "widths must be a list of ints of at least 1, got widths=[8.0]."),
        ({"widths": 8}, "widths must be a list of ints of at least 1, got widths=8."),
        ({"widths": "88"}, "widths must be a list of ints of at least 1, got widths='88'."),
    ],
)
def test_impossible_parameters_are_refused(cls, shape, params, message):
    with pytest.raises(InvalidParameter) as caught:
        build(cls, shape, **params)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("cls", "shape"), [case.values for case in CASES if issubclass(case.values[0], Decoder)]
)
def test_impossible_latent_dim_is_refused(cls, shape):
    for latent_dim in (0, 2.5, None):
        with pytest.raises(InvalidParameter, match="latent_dim must be an int of at least 1"):
            cls(latent_dim, shape)


@every_case
def test_empty_axes_are_refused(cls, shape):
    empty = (*shape[:-1], 0)
    parameter = "input_shape" if issubclass(cls, Encoder) else "output_shape"
    with pytest.raises(ShapeError) as caught:
        build(cls, empty)
    assert str(caught.value) == (
        f"{parameter} takes ints of at least 1, one an axis, got {empty}. "
        "Give the shape of one sample, x.shape[1:]."
    )


def test_names_lead_to_the_classes():
    for group, interface in [("nidl.encoders", Encoder), ("nidl.decoders", Decoder)]:
        found = {e.name: e.load() for e in entry_points(group=group) if "backbones" in e.value}
        assert sorted(found) == ["cnn2d", "cnn3d", "mlp"]
        assert all(issubclass(cls, interface) for cls in found.values())


@pytest.mark.parametrize("module", ["nidl_backbones.cnn", "nidl_backbones.mlp"])
def test_docstring_examples_run(module):
    module = importlib.import_module(module)
    classes = [n for n in vars(module) if n.endswith(("Encoder", "Decoder"))]
    public = [n for n in classes if vars(module)[n].__module__ == module.__name__ and n[0] != "_"]
    failed, attempted = doctest.testmod(module)
    assert failed == 0
    assert attempted >= 3 * len(public)


def test_readme_example_prints_what_it_says(capsys):
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    exec(example, {})
    assert capsys.readouterr().out == "32256\n"
