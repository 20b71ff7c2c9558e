"""One page about a fitted model and its scans: what was trained on what, and how well it does."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sklearn.utils.validation import check_is_fitted

from nidl_core.errors import DataError, DataTypeError, InvalidParameter
from nidl_core.inference import check_shape
from nidl_core.parameters import check_int
from nidl_neuro.data import Scans, scans
from nidl_neuro.replacing import check_free, replacing

__all__ = ["write_report"]

_NEEDED = ("encode", "inverse_transform", "reconstruct", "sample", "score")


def write_report(
    model: Any,
    data: Any,
    out: str | os.PathLike[str],
    *,
    val: Any = None,
    title: str | None = None,
    seed: int = 0,
) -> Path:
    """Write one self-contained HTML page about a fitted model, and return its path.

    Parameters
    ----------
    model : fitted estimator
        With `encode` to a Normal over latents, `reconstruct`, `inverse_transform`, `sample` and
        `score`: a `vae`.
    data : Scans, or what `scans` takes
        The scans that the report is about, as a rule those of the fit. Paths, folders and tables
        are prepared as the model's own scans were; what cannot be used is left out, and listed.
    out : path
        The page; a file that is there is replaced in one step.
    val : as data, optional
        Held-out scans. Reconstructions are then of these, and linear probes are scored on them. Those
        that are also among `data` are left out, and the page says so. It cannot know whether they
        were in the fit: a model does not keep whom it has seen.
    title : str, optional
        At the head of the page.
    seed : int
        Of samples, of cross-validation, and of the bound where the model's `random_state` is none.

    Raises
    ------
    NotFittedError
    DataTypeError
        For a model without latents and reconstructions.
    ShapeError
        For scans on another grid than the model's.
    DataError
        For a model of other data than volumes of one channel, or without finite latents for these
        scans; for scans that were prepared otherwise than those of the fit; where all of `val` is
        among `data`; and where `out` cannot be written.
    """
    from nidl_neuro.report.brains import collect
    from nidl_neuro.report.facts import gather
    from nidl_neuro.report.page import page

    out = Path(out)
    _check_model(model)
    check_int("seed", seed, least=0)
    if title is not None and not isinstance(title, str):
        raise InvalidParameter("title", title, "a str or None")
    check_free([out], overwrite=True)
    own = _as_scans(model, data)
    held_out = None if val is None else _as_scans(model, val)
    with _seeded(model, seed):
        facts = gather(model, own, held_out, seed=seed)
        brains = collect(model, facts, seed=seed)
    text = page(facts, brains, title or "A model of brain scans")
    with replacing(out, overwrite=True) as part:
        part.write_text(text, encoding="utf-8")
    return out


def _check_model(model: Any) -> None:
    missing = [name for name in _NEEDED if not hasattr(model, name)]
    if missing:
        raise DataTypeError(
            f"a report is about an estimator with latents and reconstructions, such as a vae; "
            f"{type(model).__name__} has no {', '.join(missing)}."
        )
    check_is_fitted(model)
    shape = tuple(model.input_shape_)
    if len(shape) != 4 or shape[0] != 1:
        raise DataError(
            f"a report is about volumes (N, 1, X, Y, Z), and this model was fitted on "
            f"({', '.join(map(str, ('N', *shape)))}). Fit it on scans."
        )


def _as_scans(model: Any, data: Any) -> Scans:
    spec = getattr(model, "data_spec_", None)
    found = data if isinstance(data, Scans) else scans(data, spec, skip_bad=True)
    check_shape(found[0][None], model.input_shape_)
    found.check_like(spec)
    return found


@contextlib.contextmanager
def _seeded(model: Any, seed: int) -> Iterator[None]:
    """A model without a seed of its own answers repeatably for a while."""
    given = model.random_state
    if given is None:
        model.set_params(random_state=seed)
    try:
        yield
    finally:
        if given is None:
            model.set_params(random_state=None)
