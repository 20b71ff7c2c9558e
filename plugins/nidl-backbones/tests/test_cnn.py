"""The convolutional pairs: exact sizes, defaults, stages and refusals."""

import random

import pytest
import torch
from torch import nn

from nidl_backbones.cnn import CNN2dDecoder, CNN2dEncoder, CNN3dDecoder, CNN3dEncoder
from nidl_core.errors import InvalidParameter, ShapeError

ENCODERS = {2: CNN2dEncoder, 3: CNN3dEncoder}
DECODERS = {2: CNN2dDecoder, 3: CNN3dDecoder}
CONVS = (nn.Conv2d, nn.Conv3d)

SIZES = [(28, 28), (30, 30), (8, 8), (7, 5), (1, 17), (23, 1), (1, 1), (33, 41, 25), (9, 1, 6)]
_draw = random.Random(0)
SIZES += [tuple(_draw.randint(1, 40) for _ in range(2)) for _ in range(6)]
SIZES += [tuple(_draw.randint(1, 24) for _ in range(3)) for _ in range(6)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_decoder_gives_exactly_the_size_asked_for(size, kernel_size):
    decoder = DECODERS[len(size)](4, (2, *size), kernel_size=kernel_size)
    assert decoder(torch.randn(2, 4)).shape == (2, 2, *size)


def test_decoder_gives_exactly_a_brain_of_91x109x91():
    decoder = CNN3dDecoder(4, (1, 91, 109, 91), widths=[8, 4, 4, 2])
    with torch.no_grad():
        assert decoder(torch.randn(1, 4)).shape == (1, 1, 91, 109, 91)


@pytest.mark.parametrize("size", [(30, 28), (7, 5), (1, 17), (13, 9, 10)], ids=str)
def test_decoder_passes_through_the_sizes_of_the_encoder(size):
    dims = len(size)
    x = torch.randn(2, 1, *size)
    down = [tuple(x.shape[2:])]
    encoder = ENCODERS[dims]((1, *size), widths=[4, 4, 4])
    for layer in encoder.layers[:-1]:
        x = layer(x)
        down.append(tuple(x.shape[2:]))
    h, up = torch.randn(2, 3), []
    for layer in DECODERS[dims](3, (1, *size), widths=[4, 4, 4]).layers[:-1]:
        h = layer(h)
        up.append(tuple(h.shape[2:]))
    assert up == down[::-1]


@pytest.mark.parametrize(
    ("size", "widths"),
    [
        ((1, 1), [32]),
        ((8, 8), [32]),
        ((28, 28), [32, 64]),
        ((30, 17), [32, 64, 128]),
        ((224, 224), [32, 64, 128, 256, 256]),
        ((512, 512), [32, 64, 128, 256, 256]),
        ((8, 8, 8), [16]),
        ((64, 64, 64), [16, 32, 64, 128]),
        ((91, 109, 91), [16, 32, 64, 128]),
        ((128, 128, 128), [16, 32, 64, 128, 256]),
    ],
    ids=str,
)
def test_default_widths_halve_to_seven_or_less_and_the_decoder_mirrors_them(size, widths):
    dims = len(size)
    with torch.device("meta"):
        encoder = ENCODERS[dims]((1, *size))
        decoder = DECODERS[dims](32, (1, *size))
    assert [m.out_channels for m in encoder.modules() if isinstance(m, CONVS)] == widths
    ups = [m for m in decoder.modules() if isinstance(m, nn.ConvTranspose2d | nn.ConvTranspose3d)]
    assert [m.in_channels for m in ups] == widths[::-1]


@pytest.mark.parametrize(
    ("size", "encoder_millions", "heads_millions", "decoder_millions"),
    [
        ((28, 28), 0.02, 0.21, 0.13),
        ((224, 224), 1.0, 0.81, 1.4),
        ((64, 64, 64), 0.3, 0.53, 0.6),
        ((91, 109, 91), 0.3, 2.1, 1.4),
        ((128, 128, 128), 1.2, 1.1, 1.8),
    ],
    ids=str,
)
def test_default_parameter_count_stays_small(
    size, encoder_millions, heads_millions, decoder_millions
):
    dims = len(size)
    with torch.device("meta"):
        encoder = ENCODERS[dims]((1, *size))
        decoder = DECODERS[dims](32, (1, *size))
    millions = [sum(p.numel() for p in m.parameters()) / 1e6 for m in (encoder, decoder)]
    assert 0.7 * encoder_millions < millions[0] < 1.1 * encoder_millions
    assert 0.7 * decoder_millions < millions[1] < 1.1 * decoder_millions
    assert encoder.out_features * 2 * 32 / 1e6 < heads_millions


def test_depth_counts_the_convolutions_of_a_stage():
    encoder = CNN2dEncoder((1, 12, 9), widths=[4, 8], depth=3)
    strides = [m.stride[0] for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    assert strides == [2, 1, 1, 2, 1, 1]
    decoder = CNN2dDecoder(3, (1, 12, 9), widths=[8, 4], depth=3)
    assert sum(isinstance(m, nn.ConvTranspose2d) for m in decoder.modules()) == 2
    assert sum(isinstance(m, nn.Conv2d) for m in decoder.modules()) == 2 * 2 + 1
    assert decoder(torch.randn(2, 3)).shape == (2, 1, 12, 9)


def test_kernel_size_is_that_of_every_convolution():
    ups = (nn.ConvTranspose2d, *CONVS)
    for net in (
        CNN2dEncoder((1, 12, 9), kernel_size=5),
        CNN2dDecoder(3, (1, 12, 9), kernel_size=5),
    ):
        assert {m.kernel_size for m in net.modules() if isinstance(m, ups)} == {(5, 5)}


def test_decoder_ends_in_a_plain_convolution():
    last = CNN2dDecoder(3, (2, 12, 9), widths=[8, 5]).layers[-1]
    assert isinstance(last, nn.Conv2d)
    assert (last.in_channels, last.out_channels) == (3, 2)  # half of 5, rounded up -> P*C


def test_bias_is_left_out_only_where_the_norm_would_cancel_it():
    for normalization, has_bias in [
        ("batch", False),
        ("instance", False),
        ("group", True),
        ("layer", True),
        (None, True),
    ]:
        encoder = CNN2dEncoder((1, 12, 9), widths=[4], normalization=normalization)
        assert (encoder.layers[0][0].bias is not None) is has_bias
        decoder = CNN2dDecoder(3, (1, 12, 9), widths=[4], normalization=normalization)
        assert (decoder.layers[1][0].bias is not None) is has_bias
        assert decoder.layers[0][0][0].bias is not None  # one a voxel


@pytest.mark.parametrize("normalization", ["batch", "group", "instance", "layer"])
def test_decoder_has_a_mean_image_whatever_the_norm(normalization):
    decoder = CNN2dDecoder(3, (1, 12, 9), widths=[16], normalization=normalization)
    theta = decoder(torch.zeros(2, 3))[0, 0, 2:-2, 2:-2]  # away from the padding
    assert theta.std() > 1e-2


@pytest.mark.parametrize(
    ("width", "groups"), [(1, 1), (2, 1), (7, 1), (8, 1), (16, 2), (20, 2), (256, 32), (37, 1)]
)
def test_group_norm_takes_about_eight_channels_a_group(width, groups):
    encoder = CNN2dEncoder((1, 12, 9), widths=[width])
    assert [m.num_groups for m in encoder.modules() if isinstance(m, nn.GroupNorm)] == [groups]


def test_group_norm_trains_on_a_batch_of_one_down_to_one_voxel():
    encoder = CNN3dEncoder((1, 7, 5, 6), widths=[8, 8, 16])
    decoder = CNN3dDecoder(4, (1, 7, 5, 6), widths=[16, 8, 8])
    h = encoder(torch.randn(1, 1, 7, 5, 6))
    assert h.shape == (1, 16)
    assert h.std() > 0  # not normalised away
    assert decoder(torch.randn(1, 4)).isfinite().all()


@pytest.mark.parametrize("dims", [2, 3])
def test_pair_overfits_four_tiny_images(dims):
    torch.manual_seed(0)
    size = (9, 7, 8)[:dims]
    x = torch.rand(4, 1, *size)
    encoder = ENCODERS[dims]((1, *size), widths=[8])
    net = nn.Sequential(encoder, nn.Linear(encoder.out_features, 8), DECODERS[dims](8, (1, *size)))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    spread = x.var(dim=0, unbiased=False).mean()  # what the best constant image leaves
    for _ in range(200):
        loss = (net(x) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < spread / 10


@pytest.mark.parametrize(
    ("dims", "shape", "message"),
    [
        (
            3,
            (64, 64, 64),
            "cnn3d takes x of shape (N, C, D, H, W), got (N, 64, 64, 64). "
            "Add a channel axis: x[:, None].",
        ),
        (
            2,
            (64, 48),
            "cnn2d takes x of shape (N, C, H, W), got (N, 64, 48). Add a channel axis: x[:, None].",
        ),
        (
            3,
            (1, 28, 28),
            "cnn3d takes x of shape (N, C, D, H, W), got (N, 1, 28, 28). "
            "Choose cnn2d, or add a channel axis: x[:, None].",
        ),
        (
            3,
            (28, 30),
            "cnn3d takes x of shape (N, C, D, H, W), got (N, 28, 30). "
            "Choose mlp, which takes any shape, or cnn2d with a channel axis: x[:, None].",
        ),
        (
            2,
            (64,),
            "cnn2d takes x of shape (N, C, H, W), got (N, 64). Choose mlp, which takes any shape.",
        ),
        (
            2,
            (1, 64, 64, 64),
            "cnn2d takes x of shape (N, C, H, W), got (N, 1, 64, 64, 64). Choose cnn3d.",
        ),
        (
            3,
            (1, 9, 9, 9, 5),
            "cnn3d takes x of shape (N, C, D, H, W), got (N, 1, 9, 9, 9, 5). "
            "Choose mlp, which takes any shape.",
        ),
    ],
)
def test_wrong_rank_is_refused_with_what_would_fit(dims, shape, message):
    with pytest.raises(ShapeError) as caught:
        ENCODERS[dims](shape)
    assert str(caught.value) == message
    with pytest.raises(ShapeError) as caught:
        DECODERS[dims](4, shape)
    assert str(caught.value) == message.replace("takes x", "gives theta").replace("C", "P*C", 1)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"kernel_size": 4},
            "kernel_size must be odd, to pad both sides alike, got kernel_size=4.",
        ),
        ({"kernel_size": 0}, "kernel_size must be an int of at least 1, got kernel_size=0."),
        ({"depth": 0}, "depth must be an int of at least 1, got depth=0."),
        ({"widths": []}, "widths must be one int or more, one a stage, or None, got widths=[]."),
        (
            {"widths": [4, 4, 4, 4]},
            "widths must be a list of at most 3, the stages that bring 8x5 down to one voxel, "
            "got widths=[4, 4, 4, 4].",
        ),
        (
            {"widths": [4, 4, 1]},
            "normalization must be 'batch' or None for width 1 on one voxel, where "
            "'group' has one value at a time to work on, got normalization='group'.",
        ),
    ],
)
def test_impossible_parameters_are_refused(params, message):
    with pytest.raises(InvalidParameter) as caught:
        CNN2dEncoder((1, 8, 5), **params)
    assert str(caught.value) == message
    if params.get("widths"):
        params = params | {"widths": params["widths"][::-1]}
        message = message.replace("[4, 4, 1]", "[1, 4, 4]")
    with pytest.raises(InvalidParameter) as caught:
        CNN2dDecoder(3, (1, 8, 5), **params)
    assert str(caught.value) == message
