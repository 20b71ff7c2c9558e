"""MLPEncoder and MLPDecoder: what only they promise."""

import pytest
import torch
from torch import nn

from nidl_backbones.mlp import MLPDecoder, MLPEncoder
from nidl_core.errors import InvalidParameter, ShapeError


def test_encoder_without_widths_is_the_flattened_input():
    x = torch.randn(3, 2, 4, 5)
    encoder = MLPEncoder((2, 4, 5), widths=())
    assert encoder.out_features == 40
    assert torch.equal(encoder(x), x.flatten(1))
    assert not list(encoder.parameters())


def test_decoder_without_widths_is_one_linear_map():
    decoder = MLPDecoder(3, (2, 4, 5), widths=[])
    (weight, bias) = decoder.parameters()
    z = torch.randn(6, 3)
    expected = (z @ weight.T + bias).reshape(6, 2, 4, 5)
    torch.testing.assert_close(decoder(z), expected)


def test_hidden_layer_is_linear_norm_activation_dropout_in_that_order():
    encoder = MLPEncoder((4,), widths=(16,), activation="tanh", normalization="group", dropout=0.2)
    hidden = encoder.layers[1]
    assert [type(layer) for layer in hidden] == [nn.Linear, nn.GroupNorm, nn.Tanh, nn.Dropout]


def test_decoder_gives_theta_without_a_last_activation():
    torch.manual_seed(0)
    theta = MLPDecoder(4, (1, 30), activation="relu")(5 * torch.randn(64, 4))
    assert theta.min() < 0 < theta.max()


@pytest.mark.parametrize(
    "build", [lambda shape: MLPEncoder(shape), lambda shape: MLPDecoder(2, shape)]
)
def test_shape_without_channels_is_refused_with_the_remedy(build):
    with pytest.raises(ShapeError, match=r"got \(N,\)\. Add a channel axis: x\[:, None\]\.$"):
        build(())


def test_instance_norm_of_features_is_refused_since_it_would_be_constant():
    with pytest.raises(
        InvalidParameter,
        match=r"normalization must be 'batch', 'group', 'layer' or None for width 8, "
        r"where 'instance' has one value at a time to work on, got normalization='instance'",
    ):
        MLPEncoder((4,), widths=(8,), normalization="instance")
