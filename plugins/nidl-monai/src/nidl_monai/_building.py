"""From a model's name and `model_args` to MONAI's network: checked by name, imported quietly."""

from __future__ import annotations

import contextlib
import copy
import difflib
import importlib
import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any, TypeVar

from nidl_core.errors import InvalidParameter, NidlError, ShapeError
from nidl_core.registry import unknown_parameter
from nidl_core.seeding import preserved
from nidl_monai.networks import DecoderNetwork, EncoderNetwork, Size

Network = TypeVar("Network", EncoderNetwork, DecoderNetwork)
_AXES = {2: "H, W", 3: "D, H, W"}


def look_up(networks: Mapping[str, Network], model: str) -> Network:
    """The network of that name, or `InvalidParameter` with the nearest names."""
    if isinstance(model, str) and model in networks:
        return networks[model]
    near = difflib.get_close_matches(str(model).lower(), networks, n=3) or list(networks)
    names = ", ".join(repr(name) for name in near)
    raise InvalidParameter("model", model, f"a name that `nidl show monai` lists, such as {names}")


def checked_args(model: str, model_args: object) -> dict[str, Any]:
    """A copy of `model_args`, or `InvalidParameter` for what is no dict with names for keys."""
    if model_args is None:
        return {}
    if not isinstance(model_args, Mapping) or not all(isinstance(key, str) for key in model_args):
        raise InvalidParameter("model_args", model_args, f"a dict of arguments of {model}, or None")
    return copy.deepcopy(dict(model_args))  # MONAI writes into some of them


def make(
    network: EncoderNetwork | DecoderNetwork,
    model: str,
    args: Mapping[str, Any],
    defaults: Mapping[str, Any],
    given: Mapping[str, Any],
) -> Any:
    """MONAI's network, of `args` (the user's), `given` (what follows from shapes) and `defaults`.

    Raises `UnknownParameter` for a name among `args` that the signature lacks or nidl fills itself.
    """
    ours = {*network.withheld, *given} - set(defaults)
    accepted = [name for name in _signature(network) if name not in ours]
    for name in args:
        if name not in accepted:
            raise unknown_parameter(f"model_args of {model}", name, accepted)
    return load(network.target)(**{**defaults, **args, **given})


@contextlib.contextmanager
def blaming(model: str, args: Mapping[str, Any]) -> Iterator[None]:
    """What MONAI raises inside comes out as `InvalidParameter`, if there are `args` to blame."""
    try:
        yield
    except NidlError:
        raise
    except Exception as err:
        if not args:
            raise
        expected = f"values that {model} can be built with ({type(err).__name__}: {err})"
        raise InvalidParameter("model_args", dict(args), expected) from err


def load(target: str) -> Any:
    """The class or function "module:name" below `monai.networks.nets`.

    The first call imports MONAI, all of it, and whatever MONAI finds installed. Warning filters and
    random states are put back afterwards.
    """
    module, name = target.split(":")
    with preserved(), warnings.catch_warnings():
        # To MONAI an optional package is missing if its import raises, as a warning may be told to.
        warnings.simplefilter("ignore")
        return getattr(importlib.import_module(f"monai.networks.nets.{module}"), name)


def checked_sample(
    verb: str, channels: str, parameter: str, shape: Sequence[int]
) -> tuple[int, Size]:
    """Channels and S of (channels, *S), or `ShapeError` if S has not 2 or 3 axes of at least 1."""
    if not isinstance(shape, Sequence) or not all(map(_is_count, shape)):
        raise ShapeError(
            f"{parameter} takes ints of at least 1, one an axis, got {shape!r}. "
            "Give the shape of one sample, x.shape[1:]."
        )
    if len(shape) - 1 not in _AXES:
        fits = " or ".join(f"(N, {channels}, {axes})" for axes in _AXES.values())
        got = ", ".join(["N", *map(str, shape)])
        lacks = len(shape) == 2 and parameter == "input_shape"
        lacks_channels = "Add a channel axis: x[:, None]." if lacks else ""
        raise ShapeError(
            f"monai {verb} of shape {fits}, got ({got}). "
            f"{lacks_channels or 'Choose mlp, which takes any shape.'}"
        )
    return int(shape[0]), tuple(int(axis) for axis in shape[1:])


def checked_count(parameter: str, value: int) -> int:
    """`value` as a plain int of at least 1, or `InvalidParameter`."""
    if not _is_count(value):
        raise InvalidParameter(parameter, value, "an int of at least 1")
    return int(value)


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def _signature(network: EncoderNetwork | DecoderNetwork) -> list[str]:
    """The names of all arguments that the target takes, those that it hands on included."""
    targets = [network.target, network.hands_on_to] if network.hands_on_to else [network.target]
    found = [p for target in targets for p in inspect.signature(load(target)).parameters.values()]
    return list(dict.fromkeys(p.name for p in found if p.kind is not p.VAR_KEYWORD))
