"""What was trained, with which components and versions, on which grid."""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nidl_core.registry import SESSION, Entry, estimators
from nidl_neuro.data import Scans
from nidl_neuro.report.markup import TIMES

_OWN = "each scan's own"  # what None stands for in a preparation
_DISTRIBUTIONS = ("nidl-core", "nidl-neuro", "torch", "lightning", "nibabel", "nilearn")


@dataclass(frozen=True)
class Part:
    """A component: its role in the model, its id, the distribution it comes from, its parameters."""

    role: str
    id: str
    origin: str  # "nidl-vae 0.1.0"
    params: str


@dataclass(frozen=True)
class About:
    """A fitted model and the grid of its scans."""

    parts: tuple[Part, ...]
    params: Mapping[str, str]  # of the estimator, components left out
    weights: int  # trained numbers
    seed: int | None
    beta: float | None  # of the loss, if it has one
    preparation: Mapping[str, str]
    grid: tuple[int, ...]  # S
    voxel_size: tuple[float, ...]  # mm, of the first scan
    voxels: int  # that the bound counts
    has_mask: bool
    versions: Mapping[str, str]


def mask_of(model: Any) -> NDArray[np.bool_] | None:
    """Which voxels the bound counts, (*S); None for all."""
    mask = model.state_dict().get("data_mask")
    return None if mask is None else np.asarray(mask.cpu().numpy())


def voxels_of(model: Any) -> int:
    """How many voxels the bound counts."""
    mask = mask_of(model)
    return int(math.prod(model.input_shape_)) if mask is None else int(mask.sum())


def about(model: Any, data: Scans) -> About:
    """The facts of a fitted model; `data` are the scans of the report."""
    given = model.get_params(deep=False)
    record = data.record(0)
    return About(
        parts=tuple(_parts(model)),
        params={
            name: _text(value) for name, value in given.items() if name not in model.components
        },
        weights=sum(p.numel() for p in model.parameters() if p.requires_grad),
        seed=getattr(model, "seed_", None),
        beta=getattr(getattr(model, "criterion", None), "beta", None),
        preparation=_preparation(data.spec),
        grid=tuple(model.input_shape_[1:]),
        voxel_size=tuple(map(float, record.whole_grid.voxel_size)),
        voxels=voxels_of(model),
        has_mask=mask_of(model) is not None,
        versions={"Python": platform.python_version(), **_versions()},
    )


def _parts(model: Any) -> list[Part]:
    parts = [_part("estimator", estimators.entry_of(type(model)), type(model), {})]
    for role in model.components:
        recipe = model.recipe(role)
        if recipe is not None:
            parts.append(
                _part(role, recipe.entry, recipe.cls, model.component_params(role, model._given))
            )
        elif (built := getattr(model, role, None)) is not None:
            parts.append(_part(role, None, type(built), {}))
    return parts


def _part(role: str, entry: Entry | None, cls: type, params: Mapping[str, Any]) -> Part:
    told = ", ".join(f"{name}={_text(value)}" for name, value in params.items())
    if entry is None:
        return Part(role, cls.__name__, "handed in as an object", told)
    if entry.distribution == SESSION:
        return Part(role, entry.id, "registered by hand", told)
    return Part(role, entry.id, f"{entry.distribution} {entry.version}".strip(), told)


def _preparation(spec: Mapping[str, Any]) -> dict[str, str]:
    """The preparation's parameters; a given mask by its name."""
    return {
        name: _OWN if value is None else _given(value)
        for name, value in spec.items()
        if name not in ("made_by", "version", "affine")
    }


def _given(value: Any) -> str:
    """The mask's file without its folder, which may name people and is of no use elsewhere."""
    if not isinstance(value, Mapping):
        return _text(value)
    return f"given: {PureWindowsPath(value['name']).name}"  # of either separator


def _versions() -> dict[str, str]:
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from its sources
            continue
    return found


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f" {TIMES} ".join(map(_text, value))
    return value if isinstance(value, str) else f"{value!r:.120}"
