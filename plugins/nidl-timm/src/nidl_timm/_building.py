"""From a model's name and `model_args` to timm's model, with errors that say what would do."""

from __future__ import annotations

import copy
import difflib
import inspect
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import nn

from nidl_core.errors import InvalidParameter, NidlError, ShapeError

try:
    import timm
except RuntimeError as err:  # what torchvision raises that does not fit torch
    raise ImportError(
        f"timm needs a torchvision of the same build as torch ({torch.__version__}), and the one "
        f"installed is of another: {err}. Install torch and torchvision together, both for the CPU "
        "or both for the same CUDA"
    ) from err

# Follows from the shape of x, would change what comes out, or leads to weights.
_OURS = {"in_chans", "num_classes", "img_size", "features_only"}


class MissingWeights(NidlError):
    """Trained weights that cannot be had. What went wrong is its `__cause__`. Field: `model`."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(
            f"the trained weights of timm's {model!r} cannot be had ({reason}). They are downloaded "
            "once: connect to the network, set HF_HOME to a Hugging Face cache that holds them, or "
            "pass pretrained=False. A saved model has weights of its own: load it with components="
            f"{{'encoder': {{'name': 'timm', 'params': {{'model': {model!r}}}}}}}."
        )
        self.model = model


def models() -> list[str]:
    """The names of timm's models, without tags."""
    names: list[str] = timm.list_models()
    return names


def make(model: str, args: Mapping[str, Any], *, pretrained: bool = False) -> nn.Module:
    """timm's model without a classifier. Raises `MissingWeights`, and whatever timm raises."""
    given = copy.deepcopy(dict(args))
    try:
        net: nn.Module = timm.create_model(model, pretrained=pretrained, num_classes=0, **given)
    except Exception as err:  # of timm, Hugging Face, the network, the file system
        if not pretrained:
            raise
        raise MissingWeights(model, f"{type(err).__name__}: {err}") from err
    return net


def checked_model(model: str, pretrained: bool) -> str:
    """The name, or `InvalidParameter` for one that timm does not know or has no weights for.

    Names of timm alone: no hub, folder or file, since a name may come from somebody else's file.
    """
    plain, tagged = models(), timm.list_models(pretrained=True)
    if model not in (*plain, *tagged):
        near = difflib.get_close_matches(str(model), [*plain, *tagged], n=3, cutoff=0.5)
        hint = f", such as {' or '.join(map(repr, near))}" if near else ""
        expected = f"one of timm's {len(plain)} models{hint} (`nidl show timm` lists them)"
        raise InvalidParameter("model", model, expected)
    if pretrained and not timm.is_model_pretrained(model):
        expected = f"False for {model!r}, for which timm has no trained weights"
        raise InvalidParameter("pretrained", pretrained, expected)
    return model


def checked_args(model: str, channels: int, model_args: Mapping[str, Any] | None) -> dict[str, Any]:
    """All arguments of the model but the size, or `InvalidParameter`."""
    if model_args is None:
        return {"in_chans": channels}
    if not isinstance(model_args, Mapping) or not all(isinstance(k, str) for k in model_args):
        expected = f"a dict of arguments of timm's {model}, or None"
        raise InvalidParameter("model_args", model_args, expected)
    ours = _OURS | set(inspect.signature(timm.create_model).parameters)
    if wrong := [k for k in model_args if k in ours or k.startswith("pretrained")]:
        expected = (
            f"arguments of timm's {model} itself, without {', '.join(wrong)}: nidl sets these, or "
            "they lead to weights"
        )
        raise InvalidParameter("model_args", dict(model_args), expected)
    return {"in_chans": channels, **model_args}


def checked_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """(C, H, W) as plain ints, or `ShapeError`."""
    if not isinstance(shape, Sequence) or not all(map(_is_count, shape)):
        raise ShapeError(
            f"input_shape takes ints of at least 1, one an axis, got {shape!r}. "
            "Give the shape of one sample, x.shape[1:]."
        )
    if len(shape) != 3:
        remedy = {
            2: "Add a channel axis: x[:, None].",
            4: "Choose an encoder of volumes, such as cnn3d or monai.",
        }.get(len(shape), "Choose mlp, which takes any shape.")
        got = ", ".join(["N", *map(str, shape)])
        raise ShapeError(f"timm takes x of shape (N, C, H, W), got ({got}). {remedy}")
    channels, height, width = map(int, shape)
    return channels, height, width


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1
