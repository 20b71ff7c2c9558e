"""What a model says of scans, some at a time: latents, and p(x | z) at the voxels that count.

N scans, L latents, S the prepared grid, M the voxels of the model's mask (all of S without one).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nidl_core.data import Rows
from nidl_core.errors import DataError, NidlError
from nidl_core.inference import infer
from nidl_neuro.data import Scans, scans

Array = NDArray[Any]

_BYTES = 2**26  # of voxels at once, about


class Decoded(NamedTuple):
    """Some scans as a model sees them; `row` (n,) are their rows in the data."""

    row: Array
    latents: Array  # (n, L), means of q(z | x)
    x: Array  # (n, M), what was prepared
    mean: Array  # (n, M), of p(x | z) at those latents
    sd: Array  # (n, M), likewise

    @property
    def z(self) -> Array:
        """(x - mean) / sd, (n, M)."""
        return np.asarray((self.x - self.mean) / self.sd)


def decoded(
    model: Any, data: Scans, rows: Sequence[int] | Array | None = None, *, needs_sd: bool = True
) -> Iterator[Decoded]:
    """Scans (all, or these rows) through the model, as many at a time as take 64 MiB.

    Without `needs_sd` the likelihood need not have a standard deviation: then `sd` is 1. Raises
    `NidlError` for a model without `encode` and `decode`, `DataError` for a likelihood without
    finite mean or standard deviation.
    """
    check_model(model)
    mask = counted(model).ravel()

    def step(x: Tensor, _: int) -> Tensor:
        z = model.encode(x).mean  # (n, L)
        mean, sd = _moments(model.decode(z), needs_sd)
        return torch.cat([z, mean.flatten(1).to(z.dtype), sd.flatten(1).to(z.dtype)], dim=1)

    chosen = np.arange(len(data)) if rows is None else np.asarray(rows, dtype=int)
    size = _size(model, mask.size)
    for start in range(0, len(chosen), size):
        row = chosen[start : start + size]
        x = data.x[row]  # (n, 1, *S)
        answer = infer(model, Rows(torch.from_numpy(x)), step).numpy()
        latents, mean, sd = np.split(answer, [-2 * mask.sum(), -mask.sum()], axis=1)
        yield Decoded(row, latents, x.reshape(len(row), -1)[:, mask], mean, sd)


def posterior(model: Any, data: Scans) -> tuple[Array, Array]:
    """Mean and standard deviation of q(z | x) for all scans, each (N, L)."""
    check_model(model)

    def step(x: Tensor, _: int) -> Tensor:
        q = model.encode(x)
        return torch.stack([q.mean, q.stddev], dim=1)

    both = infer(model, model.read(data), step).numpy()
    return both[:, 0], both[:, 1]


def counted(model: Any) -> NDArray[np.bool_]:
    """The voxels (*S) that count for the model: its mask, or all."""
    mask = getattr(model, "data_mask", None)
    if mask is None:
        return np.ones(model.input_shape_[1:], dtype=bool)
    return np.asarray(mask.cpu().numpy(), dtype=bool)


def as_scans(model: Any, source: Any, **finding: Any) -> Scans:
    """Scans prepared as those that the model was fitted on.

    `source` and `finding` as `scans` takes them; `Scans` are checked. Raises `DataError` if they
    were prepared in another way, or the model does not say how.
    """
    spec = getattr(model, "data_spec_", None)
    known = isinstance(spec, Mapping) and spec.get("made_by") == "nidl-neuro"
    if not isinstance(source, Scans):
        if not known:
            raise DataError(
                "the model was not fitted on scans, so that it does not say how to prepare them. Hand "
                "in nidl_neuro.scans(source, preparation)."
            )
        return scans(source, spec, **finding)
    source.check_like(spec)
    return source


def fingerprint(model: Any) -> str:
    """A hash of all weights and buffers: another one after any further training."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_model(model: Any) -> None:
    """Raise `NidlError` unless the model has what is used here."""
    if missing := [name for name in ("encode", "decode", "read") if not hasattr(model, name)]:
        raise NidlError(
            f"a {type(model).__name__} has no {' and no '.join(missing)}. Use a model with a latent "
            "space and a decoder, such as a VAE."
        )
    if not hasattr(model, "input_shape_"):
        model.read(np.zeros((1, 1)))  # says that it is not fitted


def _moments(p: Any, needs_sd: bool) -> tuple[Tensor, Tensor]:
    if isinstance(p, Tensor):  # of a decoder that was handed in without a likelihood
        if needs_sd:
            raise DataError(
                "the model has no likelihood, so that nothing says how far a voxel may lie from its "
                "mean. Fit it with likelihood={'name': 'normal', 'params': {'scale': 'learned'}}."
            )
        return p, torch.ones_like(p)
    mean = _finite(p, "mean")
    if mean is None and not needs_sd:
        mean = p.mode  # as for a Cauchy
    sd = _finite(p, "stddev") if needs_sd and mean is not None else None
    if mean is None or (needs_sd and sd is None):
        raise DataError(
            "the model's likelihood has no finite mean and standard deviation above 0 in every voxel, "
            "so that there is no z. Choose likelihood='normal' or 'laplace'."
        )
    return mean, torch.ones_like(mean) if sd is None else sd


def _finite(p: Any, moment: str) -> Tensor | None:
    try:
        value: Tensor = getattr(p, moment)
    except NotImplementedError:
        return None
    good = bool(torch.isfinite(value).all()) and (moment == "mean" or bool((value > 0).all()))
    return value if good else None


def _size(model: Any, voxels: int) -> int:
    return int(max(1, min(model.batch_size, _BYTES // (4 * voxels))))
