"""Checks on one sample, before training: what does not fit is told in words, with both shapes."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent

from nidl_core.errors import DataError, ShapeError
from nidl_vae.bound import check_same_shape

CROSS_ENTROPY = (
    "the data hold values between 0 and 1: what a Bernoulli decoder gives for them is a cross-entropy, "
    "not a likelihood of the data. Threshold them, e.g. x = (x > 0.5), or choose default_dist='normal'."
)


def width(encoder: nn.Module, x: Tensor, declared: int | None) -> int:
    """F, the number of features that the encoder gives for x (1, C, *S). Raises `ShapeError`."""
    try:
        h = encoder(x)
    except RuntimeError as err:
        raise ShapeError(
            f"the encoder cannot take x of shape {_text(x)}: {err}. Give the data the channel axis and "
            "the size that it was made for."
        ) from err
    if not isinstance(h, Tensor) or h.ndim != 2 or len(h) != len(x):
        got = _text(h) if isinstance(h, Tensor) else type(h).__name__
        raise ShapeError(
            f"the encoder must give h of shape (N, F) for x of shape {_text(x)}, got {got}. Add "
            "nn.Flatten() at its end; if the images have no channel axis, add one: x[:, None]."
        )
    if declared not in (None, h.shape[1]):
        raise ShapeError(
            f"encoder_out_dim is {declared}, but the encoder gives {h.shape[1]} features. Pass "
            f"encoder_out_dim={h.shape[1]}, or leave it out."
        )
    return h.shape[1]


def check_decoded(decode: Callable[[Tensor], object], z: Tensor, x: Tensor) -> None:
    """Raise `ShapeError` unless z (1, L) is decoded to a tensor or distribution of the shape of x."""
    try:
        p = decode(z)
    except RuntimeError as err:
        raise ShapeError(
            f"the decoder cannot take z of shape (N, {z.shape[1]}), latent_dim being {z.shape[1]}: {err}."
        ) from err
    if not isinstance(p, (Tensor, Distribution)):
        raise ShapeError(
            f"the decoder must give a tensor or a torch.distributions.Distribution, got {type(p)}."
        )
    check_same_shape(shape_of(p), x.shape)


def check_bernoulli(p: Tensor | Distribution, x: Tensor, default_dist: str) -> bool:
    """For a Bernoulli decoder, raise `DataError` for data or probabilities outside [0, 1].

    Returns whether x holds anything but 0 and 1, so that the loss is a cross-entropy.
    """
    base = p.base_dist if isinstance(p, Independent) else p
    from_tensor = isinstance(p, Tensor) and default_dist == "bernoulli"
    if not from_tensor and not isinstance(base, Bernoulli):
        return False
    if not _in_unit(x):
        raise DataError(
            f"a Bernoulli decoder takes data in [0, 1], got values in [{float(x.min()):g}, "
            f"{float(x.max()):g}]. Rescale the data, or choose default_dist='normal'."
        )
    if isinstance(p, Tensor) and not _in_unit(p):
        raise DataError(
            "default_dist='bernoulli' reads the decoder's output as probabilities, got values in "
            f"[{float(p.min()):g}, {float(p.max()):g}]. End the decoder with nn.Sigmoid(), or pass "
            "likelihood='bernoulli', which takes logits."
        )
    return not bool(((x == 0) | (x == 1)).all())


def shape_of(p: Tensor | Distribution) -> tuple[int, ...]:
    """The shape of the data that p is about."""
    return p.shape if isinstance(p, Tensor) else p.batch_shape + p.event_shape


def _in_unit(x: Tensor) -> bool:
    return bool(((x >= 0) & (x <= 1)).all())


def _text(x: Tensor) -> str:
    return f"({', '.join(['N', *map(str, x.shape[1:])])})" if len(x) == 1 else str(tuple(x.shape))
