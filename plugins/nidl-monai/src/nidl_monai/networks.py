"""The networks of MONAI that nidl knows: how each is built for a shape, and what of it is used.

Shapes: N batch, C channels, S spatial ((H, W) or (D, H, W)), F features, L latent, P raw numbers
per value. An encoder's row gives a map of features (N, F, *s), a decoder's row theta (N, P*C, *s)
with s at least S on each axis. Decoders that need an encoder's maps beside z (those of U-Net,
SegResNet and UNETR) do not fit and are not here.

Everything that is known of MONAI's names stands in this file, and reading it imports none of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Size = tuple[int, ...]
Args = Mapping[str, Any]


@dataclass(frozen=True)
class EncoderNetwork:
    """One of MONAI's networks, and the map of features (N, F, *s) taken from it."""

    target: str  # "module:name" below monai.networks.nets
    arguments: Callable[[int, Size], dict[str, Any]]  # what follows from C and S
    features: Callable[[Any, Tensor], Tensor]  # network and x (N, C, *S) -> the map
    withheld: tuple[str, ...] = ()  # others that users may not give: heads, downloads, classes
    hands_on_to: str = ""  # the class that takes what the target takes as **kwargs
    defaults: Callable[[Size, Args], dict[str, Any]] = lambda size, args: {}  # where MONAI has none
    patches: Callable[[Size, Args], Size] | None = None  # what S is padded to a multiple of


@dataclass(frozen=True)
class DecoderNetwork:
    """One of MONAI's networks, and theta (N, P*C, *s) made by it, without a last activation."""

    target: str
    arguments: Callable[[int, int, Size, Args], dict[str, Any]]  # from L, P*C, S and the others
    decode: Callable[[Any, Tensor], Tensor]  # network and z (N, L), or the first map, -> theta
    defaults: Callable[[Size, Args], dict[str, Any]]
    withheld: tuple[str, ...] = ()
    hands_on_to: str = ""
    first_map: Callable[[Size, Args], Size] | None = None  # (channels, *s), made from z beforehand


def _stages(size: Size, args: Args) -> dict[str, Any]:
    """Channels and strides, from x to z, of stages that bring the longest axis to 7 or less."""
    count = min(max(1, math.ceil(math.log2(max(size) / 7))), 5)
    if given := [args[name] for name in ("channels", "strides") if name in args]:
        count = len(given[0])
        if len(given[-1]) != count:
            raise ValueError("channels and strides differ in length")
    if any(len(_per_axis(stride, size)) != len(size) for stride in args.get("strides", ())):
        raise ValueError(f"a stride is an int or {len(size)} ints, one an axis")
    first = 32 if len(size) == 2 else 16  # a volume has more voxels to hold than an image
    channels = tuple(min(first * 2**stage, 256) for stage in range(count))
    return {"channels": channels, "strides": (2,) * count}


def _through_blocks(net: Any, h: Tensor) -> Tensor:
    # What attention gives for one sample is laid out as torch.compile does not expect it.
    for block in net.blocks:
        h = block(h).contiguous()
    return h


def _per_axis(value: Any, size: Size) -> Size:
    """An int for all axes, or one for each, as a tuple."""
    return (value,) * len(size) if isinstance(value, int) else tuple(value)


def _levels(size: Size, args: Args) -> dict[str, Any]:
    """MONAI's AutoencoderKL's defaults for as many levels, attention on the smallest map alone."""
    channels = args.get("channels", (32, 64, 64, 64))
    return {
        "channels": channels,
        "num_res_blocks": (2,) * len(channels),
        "attention_levels": (False,) * len(channels),  # its memory grows with voxels squared
        "norm_num_groups": 32,
        "norm_eps": 1e-6,
    }


# Encoders ---------------------------------------------------------------------------------------


def _densenet(depth: int) -> EncoderNetwork:
    return EncoderNetwork(
        target=f"densenet:DenseNet{depth}",
        hands_on_to="densenet:DenseNet",
        arguments=lambda channels, size: {
            "spatial_dims": len(size),
            "in_channels": channels,
            "out_channels": 1,
        },
        features=lambda net, x: net.class_layers.relu(net.features(x)),
        withheld=("pretrained", "progress"),
    )


def _resnet(depth: int) -> EncoderNetwork:
    return EncoderNetwork(
        target=f"resnet:resnet{depth}",
        hands_on_to="resnet:ResNet",
        arguments=lambda channels, size: {
            "spatial_dims": len(size),
            "n_input_channels": channels,
            "feed_forward": False,
        },
        features=_resnet_features,
        withheld=("pretrained", "progress", "num_classes", "block", "layers", "block_inplanes"),
    )


def _resnet_features(net: Any, x: Tensor) -> Tensor:
    h = net.act(net.bn1(net.conv1(x)))
    if not net.no_max_pool:
        h = net.maxpool(h)
    h = net.layer4(net.layer3(net.layer2(net.layer1(h))))
    return h  # type: ignore[no-any-return]


def _efficientnet(name: str) -> EncoderNetwork:
    return EncoderNetwork(
        target="efficientnet:EfficientNetBN",
        arguments=lambda channels, size: {
            "model_name": name,
            "pretrained": False,  # MONAI's default downloads weights
            "spatial_dims": len(size),
            "in_channels": channels,
            "num_classes": 1,
        },
        features=_efficientnet_features,
        withheld=("progress", "adv_prop"),
    )


def _efficientnet_features(net: Any, x: Tensor) -> Tensor:
    h = net._swish(net._bn0(net._conv_stem(net._conv_stem_padding(x))))
    h = net._conv_head(net._conv_head_padding(net._blocks(h)))
    return net._swish(net._bn1(h))  # type: ignore[no-any-return]


def _senet(name: str) -> EncoderNetwork:
    return EncoderNetwork(
        target=f"senet:{name}",
        hands_on_to="senet:SENet",
        arguments=lambda channels, size: {
            "spatial_dims": len(size),
            "in_channels": channels,
            "num_classes": 1,
        },
        features=lambda net, x: net.features(x),
        withheld=("pretrained", "progress", "block", "dropout_prob", "dropout_dim"),
    )


_VIT = EncoderNetwork(
    target="vit:ViT",
    arguments=lambda channels, size: {
        "spatial_dims": len(size),
        "in_channels": channels,
        "img_size": size,
        "classification": False,
    },
    features=lambda net, x: net(x)[0].transpose(1, 2),  # T tokens (N, T, F) -> (N, F, T)
    withheld=("num_classes", "post_activation", "save_attn"),
    defaults=lambda size, args: {"patch_size": tuple(min(16, axis) for axis in size)},
    patches=lambda size, args: _per_axis(args["patch_size"], size),
)

_SWINVIT = EncoderNetwork(
    target="swin_unetr:SwinTransformer",
    arguments=lambda channels, size: {"spatial_dims": len(size), "in_chans": channels},
    features=lambda net, x: net(x)[-1],
    withheld=("norm_layer",),
    defaults=lambda size, args: {  # those of MONAI's SwinUNETR
        "embed_dim": 24,
        "window_size": (7,) * len(size),
        "patch_size": (2,) * len(size),
        "depths": (2, 2, 2, 2),
        "num_heads": (3, 6, 12, 24),
    },
)

_SEGRESNET = EncoderNetwork(
    target="segresnet_ds:SegResEncoder",
    arguments=lambda channels, size: {"spatial_dims": len(size), "in_channels": channels},
    features=lambda net, x: net(x)[-1],
    withheld=("head_module",),
)

_AUTOENCODER = EncoderNetwork(
    target="autoencoder:AutoEncoder",
    arguments=lambda channels, size: {
        "spatial_dims": len(size),
        "in_channels": channels,
        "out_channels": 1,
    },
    features=lambda net, x: net.intermediate(net.encode(x)),
    withheld=("up_kernel_size",),
    defaults=_stages,
)

_AUTOENCODERKL = EncoderNetwork(
    target="autoencoderkl:Encoder",
    arguments=lambda channels, size: {"spatial_dims": len(size), "in_channels": channels},
    features=_through_blocks,
    defaults=lambda size, args: {"out_channels": 64, **_levels(size, args)},
)

_REGRESSOR = EncoderNetwork(
    target="regressor:Regressor",
    arguments=lambda channels, size: {"in_shape": (channels, *size), "out_shape": (1,)},
    features=lambda net, x: net.net(x),
    defaults=_stages,
)

ENCODERS: dict[str, EncoderNetwork] = {
    "densenet121": _densenet(121),
    "densenet169": _densenet(169),
    "densenet201": _densenet(201),
    "densenet264": _densenet(264),
    "resnet10": _resnet(10),
    "resnet18": _resnet(18),
    "resnet34": _resnet(34),
    "resnet50": _resnet(50),
    "resnet101": _resnet(101),
    "resnet152": _resnet(152),
    "resnet200": _resnet(200),
    "senet154": _senet("SENet154"),
    "seresnet50": _senet("SEResNet50"),
    "seresnet101": _senet("SEResNet101"),
    "seresnet152": _senet("SEResNet152"),
    "seresnext50": _senet("SEResNext50"),
    "seresnext101": _senet("SEResNext101"),
    "efficientnet-b0": _efficientnet("efficientnet-b0"),
    "efficientnet-b1": _efficientnet("efficientnet-b1"),
    "efficientnet-b2": _efficientnet("efficientnet-b2"),
    "efficientnet-b3": _efficientnet("efficientnet-b3"),
    "efficientnet-b4": _efficientnet("efficientnet-b4"),
    "efficientnet-b5": _efficientnet("efficientnet-b5"),
    "efficientnet-b6": _efficientnet("efficientnet-b6"),
    "efficientnet-b7": _efficientnet("efficientnet-b7"),
    "efficientnet-b8": _efficientnet("efficientnet-b8"),
    "efficientnet-l2": _efficientnet("efficientnet-l2"),
    "vit": _VIT,
    "swinvit": _SWINVIT,
    "segresnet": _SEGRESNET,
    "autoencoder": _AUTOENCODER,
    "autoencoderkl": _AUTOENCODERKL,
    "regressor": _REGRESSOR,
}

# Decoders ---------------------------------------------------------------------------------------


def _first_size(size: Size, strides: Any) -> Size:
    """The smallest s that these strides, each an int or one an axis, bring to at least `size`."""
    steps = [_per_axis(stride, size) for stride in strides]
    whole = [math.prod(step[axis] for step in steps) for axis in range(len(size))]
    return tuple(math.ceil(axis / factor) for axis, factor in zip(size, whole, strict=True))


def _generator_stages(size: Size, args: Args) -> dict[str, Any]:
    stages = _stages(size, args)
    return {**stages, "channels": stages["channels"][::-1]}


_GENERATOR = DecoderNetwork(
    target="generator:Generator",
    arguments=lambda latent_dim, channels, size, args: {
        "latent_shape": (latent_dim,),
        "start_shape": (args["channels"][0], *_first_size(size, args["strides"])),
        "channels": (*args["channels"][1:], channels),
        "strides": args["strides"],
    },
    decode=lambda net, z: net(z),
    defaults=_generator_stages,
)

_VARAUTOENCODER = DecoderNetwork(
    target="varautoencoder:VarAutoEncoder",
    arguments=lambda latent_dim, channels, size, args: {
        "spatial_dims": len(size),
        "in_shape": (1, *size),
        "out_channels": channels,
        "latent_size": latent_dim,
    },
    decode=lambda net, z: net.decode_forward(z, use_sigmoid=False),
    defaults=_stages,
    withheld=(
        "use_sigmoid",
        "use_mean_at_inference",
        "inter_channels",
        "inter_dilations",
        "num_inter_units",
    ),
)


def _autoencoderkl_start(size: Size, args: Args) -> Size:
    halvings = (2,) * (len(args["channels"]) - 1)
    return (args["in_channels"], *_first_size(size, halvings))


_AUTOENCODERKL_DECODER = DecoderNetwork(
    target="autoencoderkl:Decoder",
    arguments=lambda latent_dim, channels, size, args: {
        "spatial_dims": len(size),
        "out_channels": channels,
    },
    decode=_through_blocks,
    defaults=lambda size, args: {"in_channels": 64, **_levels(size, args)},
    first_map=_autoencoderkl_start,
)

DECODERS: dict[str, DecoderNetwork] = {
    "generator": _GENERATOR,
    "varautoencoder": _VARAUTOENCODER,
    "autoencoderkl": _AUTOENCODERKL_DECODER,
}
