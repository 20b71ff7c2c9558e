"""`--set NAME=VALUE`: parameters given on the command line, beside those of a spec or a model."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from nidl_core import specs
from nidl_core.errors import SpecError

Setting = tuple[str, Any]


def add(parser: argparse.ArgumentParser) -> None:
    """Add `--set`, which may come several times."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=setting,
        dest="settings",
        metavar="NAME=VALUE",
        help="a parameter, as latent_dim=16 or encoder.widths=[16,32]; the value is JSON or text",
    )


def setting(text: str) -> Setting:
    """The name, as `set_params` takes it (`encoder__widths`), and the value of NAME=VALUE."""
    name, equals, value = text.partition("=")
    name = name.strip().replace(".", "__")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        found = specs.parse_json(value)
    except (ValueError, RecursionError) as err:
        if value in ("True", "False", "None"):  # as text they would be true, all three
            meant = {"True": "true", "False": "false", "None": "null"}[value]
            raise argparse.ArgumentTypeError(f"{name}: say {meant}, as in JSON") from None
        if value.lstrip()[:1] in ("[", "{", '"'):
            raise argparse.ArgumentTypeError(
                f"{name}: {value!r:.60} begins like JSON but is not ({err}). Quote it for the shell: "
                f"--set '{name}=[16, 32]'"
            ) from None
        found = value
    try:
        specs.check_plain(found, name)
    except SpecError as err:
        raise argparse.ArgumentTypeError(str(err)) from None
    return name, found


def configured(spec: Mapping[str, Any], settings: list[Setting]) -> tuple[Any, set[str]]:
    """The estimator of a spec with these settings on top, and the parameters that were given at all.

    Raises `InvalidParameter` for an impossible value.
    """
    own = {name: value for name, value in settings if "__" not in name}
    nested = {name: value for name, value in settings if "__" in name}
    params = {**spec["params"], **own}
    estimator = specs.build({"name": spec["name"], "params": params}).set_params(**nested)
    estimator.check_values()
    return estimator, {*params, *(name.partition("__")[0] for name in nested)}


def reconfigure(model: Any, settings: list[Setting]) -> None:
    """Change what a fitted model reads at inference: `accelerator`, `batch_size`, ...

    Raises `SpecError` for what shapes the networks, which would count at the next fit only.
    """
    for name, _ in settings:
        parameter = name.partition("__")[0]
        if parameter in model.structural or parameter in model.components:
            raise SpecError(
                f"{name} belongs to the networks, which have been trained: it cannot be set on a model. "
                "Set it when you fit."
            )
    model.set_params(**dict(settings)).check_values()
