"""The curves of a fit, from what the estimator logged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_TOLERANCE = 1e-5  # of the bound, by which its logged parts may miss it: they are float32 means
_FLAT = 4.0  # times the span of the later epochs: what squashes them


@dataclass(frozen=True)
class Curve:
    """One figure over the epochs in which it was logged, in nats per scan."""

    name: str
    stage: str  # "train" or "val"
    epochs: tuple[int, ...]  # counted from 1
    values: tuple[float, ...]


@dataclass(frozen=True)
class History:
    """What there is to draw of a fit.

    bound: log p(x) >= it, the true evidence lower bound. fit: E[log p(x | z)]. kl: KL(q || prior),
    in nats; bound = fit - kl. `adds_up` is False where the loss logged parts of its own under
    those names, which are then left out. `not_finite` are the epochs, counted from 1, with a bound
    that is not: they are not drawn.
    """

    epochs: int
    bound: tuple[Curve, ...]
    fit: tuple[Curve, ...]
    kl: tuple[Curve, ...]
    adds_up: bool
    not_finite: tuple[int, ...]


def curves(rows: Sequence[Mapping[str, float]]) -> History:
    """The curves in an estimator's `history_`; none for epochs that logged no bound."""
    stages = ("train", "val")
    bound = [_curve("bound", stage, rows, f"{stage}/elbo", 1) for stage in stages]
    adds_up = all(_adds_up(row, stage) for row in rows for stage in stages)
    parts = stages if adds_up else ()
    return History(
        epochs=len(rows),
        bound=_there(bound),
        fit=_there(_curve("fit", stage, rows, f"{stage}/rec_loss", -1) for stage in parts),
        kl=_there(_curve("KL", stage, rows, f"{stage}/kl_loss", 1) for stage in parts),
        adds_up=adds_up,
        not_finite=tuple(
            _epoch(row, place)
            for place, row in enumerate(rows)
            if not all(math.isfinite(row.get(f"{stage}/elbo", 0.0)) for stage in stages)
        ),
    )


def settled(curves: Sequence[Curve]) -> tuple[float, float] | None:
    """The range to draw where the first epochs would press all later ones flat; else None.

    It holds the last three quarters of every curve, and half of their span to either side, as far as
    there are values.
    """
    every = [value for curve in curves for value in curve.values]
    later = [value for curve in curves for value in curve.values[len(curve.values) // 4 :]]
    span = max(later) - min(later)
    if span == 0 or max(every) - min(every) <= _FLAT * span:
        return None
    return max(min(every), min(later) - span / 2), min(max(every), max(later) + span / 2)


def _curve(
    name: str, stage: str, rows: Sequence[Mapping[str, float]], key: str, sign: int
) -> Curve:
    seen = [
        (_epoch(row, place), sign * float(row[key]))
        for place, row in enumerate(rows)
        if key in row and math.isfinite(row[key])
    ]
    return Curve(name, stage, tuple(e for e, _ in seen), tuple(v for _, v in seen))


def _epoch(row: Mapping[str, float], place: int) -> int:
    epoch = row.get("epoch", place)
    return int(epoch if math.isfinite(epoch) else place) + 1


def _there(curves: Iterable[Curve]) -> tuple[Curve, ...]:
    return tuple(curve for curve in curves if curve.values)


def _adds_up(row: Mapping[str, float], stage: str) -> bool:
    keys = [f"{stage}/{part}" for part in ("elbo", "rec_loss", "kl_loss")]
    if keys[0] not in row:
        return True
    if not all(key in row for key in keys):
        return False
    bound, rec, kl = (float(row[key]) for key in keys)
    if not all(map(math.isfinite, (bound, rec, kl))):
        return True  # an epoch that went wrong says nothing of the loss
    return abs(bound + rec + kl) <= _TOLERANCE * max(1.0, abs(bound), abs(rec), abs(kl))
