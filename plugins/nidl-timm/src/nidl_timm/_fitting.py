"""Making a model of timm fit a size: attempts, what each leaves out, what it never uses.

Shapes: x (N, C, H, W) -> h (N, F).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from nidl_core.errors import InvalidParameter, NidlError, ShapeError
from nidl_core.seeding import preserved
from nidl_timm._building import make

Size = tuple[int, ...]
Args = Mapping[str, Any]
_STRIDE = 32  # of most networks, for those that do not tell theirs
_MULTIPLES = (1, 2, 3, 4, 6, 7, 8, 10, 12, 16)  # of the stride, to look for what would fit


@dataclass(frozen=True)
class Fitted:
    """A model that takes all of x, once x is padded."""

    net: nn.Module
    padding: tuple[int, int, int, int]  # zeros at the left, right, top and bottom
    width: int  # F
    lone_norms: tuple[str, ...]  # batch norms that see one value a channel of each image
    caching: tuple[str, ...]  # layers that keep what they made from their weights


def features(net: nn.Module, x: Tensor, pool: bool) -> Tensor:
    """h (N, F): what timm gives its classifier, or all of the last map."""
    h = net(x) if pool else net.forward_features(x)  # type: ignore[operator]
    if not isinstance(h, Tensor):
        expected = "True for this model, whose last features are several tensors"
        raise InvalidParameter("pool", pool, expected)
    return h.flatten(1)


def fitted(
    model: str, args: Args, shape: tuple[int, int, int], *, pretrained: bool, pool: bool
) -> Fitted:
    """The model for x (N, *shape), made for the first size with which it leaves nothing out.

    The weights are those of the random state that it finds: attempts that fail draw nothing. Raises
    `InvalidParameter` for arguments that timm refuses, `ShapeError` or `MissingWeights`.
    """
    stride = _stride(model, args)
    start = torch.get_rng_state()
    fault: Exception | None = None
    for size, given in _attempts(shape[1:], stride):
        padding = (0, size[1] - shape[2], 0, size[0] - shape[1])
        try:
            _run_on_meta(model, {**args, **given}, size, pool)
            net = make(model, {**args, **given}, pretrained=pretrained)
            if found := _probed(net, padding, shape, pool):
                return found
        except (MemoryError, NidlError):
            raise
        except Exception as err:  # timm says "does not fit" in all kinds of errors
            if fault is None or isinstance(fault, TypeError):  # it takes no img_size: no matter
                fault = err
        torch.set_rng_state(start)
    told = _told(fault) if fault else "it leaves out a part"
    raise ShapeError(
        f"timm's {model} cannot take x of shape (N, {', '.join(map(str, shape))}), as it is or padded "
        f"to a multiple of {stride} ({told}). {_remedy(model, args, shape, stride, pool)}"
    ) from fault


def _told(err: Exception) -> str:
    return f"{type(err).__name__}: {err}" if str(err) else f"{type(err).__name__}, without a word"


def _stride(model: str, args: Args) -> int:
    """How many pixels one position of the last map stands for. Finds what timm refuses to build."""
    try:
        with torch.device("meta"):
            info = getattr(make(model, args), "feature_info", ())
    except Exception as err:
        own = {name: value for name, value in args.items() if name != "in_chans"}
        if own:
            expected = f"arguments that timm's {model} can be built with ({_told(err)})"
            raise InvalidParameter("model_args", own, expected) from err
        expected = f"a model that timm can build for {args['in_chans']} channels ({_told(err)})"
        raise InvalidParameter("model", model, expected) from err
    stages = getattr(info, "info", info)
    return max((int(stage["reduction"]) for stage in stages), default=_STRIDE)


def _attempts(size: Size, stride: int) -> Iterator[tuple[Size, Args]]:
    """Sizes to pad to, and what to tell timm of them.

    As it is, a multiple of the stride, and more, for convolutions without padding of their own, and a
    square; first by `img_size`, for models that are made for one size, then without, for all others.
    """
    multiple = tuple(math.ceil(axis / stride) * stride for axis in size)
    one_more = tuple(math.ceil((axis - 1) / stride) * stride + 1 for axis in size)
    stride_more = tuple(axis + stride for axis in multiple)
    square = (max(multiple), max(multiple))
    sizes = dict.fromkeys((size, multiple, one_more, stride_more, square))
    yield from ((size, {"img_size": size}) for size in sizes)
    yield from ((size, {}) for size in sizes)


def _run_on_meta(model: str, args: Args, size: Size, pool: bool) -> None:
    """Raise what building and running it for `size` raises. No value is drawn or computed."""
    with torch.device("meta"), torch.no_grad():
        x = torch.empty(1, args["in_chans"], *size)
        features(make(model, args).eval(), x, pool)


def _probed(
    net: nn.Module, padding: tuple[int, int, int, int], shape: Size, pool: bool
) -> Fitted | None:
    """What there is to know of a network that was built, or None where it leaves out part of x.

    Freezes the parameters that h does not depend on.
    """
    # NaN spoils all that it reaches: does it come from the last row, and from the last column, to h?
    x = torch.zeros(2, *shape)
    x[0, :, -1] = math.nan
    x[1, :, :, -1] = math.nan
    lone: dict[str, None] = {}

    def look(name: str, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].numel() == len(x) * inputs[0].shape[1]:
            lone[name] = None

    norms = [(name, m) for name, m in net.named_modules() if isinstance(m, _BatchNorm)]
    hooks = [norm.register_forward_pre_hook(partial(look, name)) for name, norm in norms]
    trained = [p for p in net.parameters() if p.requires_grad]
    with preserved(), torch.enable_grad():
        h = features(net.eval(), F.pad(x, padding), pool)  # (2, F)
        grads = torch.autograd.grad(h.sum(), trained, allow_unused=True)
    for hook in hooks:
        hook.remove()
    if not bool(h.isnan().any(1).all()):
        return None
    for parameter, grad in zip(trained, grads, strict=True):
        if grad is None:
            parameter.requires_grad_(False)
    caching = [name for name, m in net.named_modules() if hasattr(m, "attention_bias_cache")]
    forget(net, caching)
    return Fitted(net.train(), padding, h.shape[1], tuple(lone), tuple(caching))


def forget(net: nn.Module, caching: Iterable[str]) -> None:
    """Empty the caches of these layers: what they hold was made from weights, which change."""
    for name in caching:
        net.get_submodule(name).attention_bias_cache.clear()  # type: ignore[operator, union-attr]


def _remedy(model: str, args: Args, shape: tuple[int, int, int], stride: int, pool: bool) -> str:
    """What would fit, found by trying."""
    for channels in dict.fromkeys((shape[0], 3)):
        for multiple in _MULTIPLES:
            step = multiple * stride
            size = tuple(math.ceil(axis / step) * step for axis in shape[1:])
            for given in ({"img_size": size}, {}):
                try:
                    _run_on_meta(model, {**args, "in_chans": channels, **given}, size, pool)
                except Exception:
                    continue
                wanted = f"{channels} channels of " if channels != shape[0] else ""
                return f"It takes {wanted}{_text(size)}: pad or resize x to that."
    return "Choose another model, such as resnet18, which takes any size."


def _text(size: Size) -> str:
    return "x".join(map(str, size))
