"""What the numbers mean, in plain words: each verdict has a mood ("good", "warn", "bad") and sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nidl_neuro.report.apart import Apart
from nidl_neuro.report.facts import Facts, Group
from nidl_neuro.report.latents import Posterior

_AWAY = 0.5  # of the mean of a dimension from 0
_WIDE = 1.5  # standard deviation of a dimension, or 1 / it
_UNSEEN_GAP = 1.25  # held-out error over that of the data
_BEHIND = 1.5  # error over that of principal components


@dataclass(frozen=True)
class Verdict:
    """A judgement and its reasons."""

    mood: str
    head: str
    text: str


def on_collapse(latents: Posterior) -> Verdict:
    """Whether the model uses its latent dimensions."""
    size, count = len(latents.kl), int(latents.active.sum())
    if len(latents.mean) < 2:
        return Verdict(
            "warn",
            "One scan tells nothing about the latents",
            "Whether a dimension varies between people can be seen from two scans on.",
        )
    if count == 0:
        return Verdict(
            "bad",
            "Posterior collapse: the model ignores its latents",
            "Whatever scan goes in, nearly the same latent values come out, so every reconstruction is about "
            "the same average brain. What can still be read from these latents is little; do not analyse "
            "them. Common remedies: train longer, lower beta, raise it slowly from 0 during "
            "training, or use a likelihood with a learned scale where it is fixed.",
        )
    if count < size:
        idle = [f"z{k}" for k in range(size) if not latents.active[k]]
        return Verdict(
            "warn" if count < size / 2 else "good",
            f"{count} of {size} latent dimensions are used",
            f"The other {size - count} ({_listed(idle)}) hardly change from scan to scan: the model has "
            "switched them off (posterior collapse of single dimensions). That does no harm by itself, "
            "but they hold next to no information about people: leave them out of analyses. If you expected "
            "more of the model, train longer or lower beta.",
        )
    return Verdict(
        "good",
        "All latent dimensions are used" if size > 1 else "The one latent dimension is used",
        "Each of them changes from scan to scan: there is no posterior collapse. That all are in use may "
        "also mean that more dimensions could be put to use.",
    )


def on_prior(latents: Posterior) -> Verdict | None:
    """Whether the scans' latents lie where the prior, from which samples are drawn, has them."""
    mean = latents.mean.mean(axis=0)
    spread = (latents.spread + np.square(latents.sd).mean(axis=0)) ** 0.5
    away = np.flatnonzero((np.abs(mean) > _AWAY) | (spread > _WIDE) | (spread < 1 / _WIDE))
    if len(latents.mean) < 2 or not len(away):
        return None
    return Verdict(
        "warn",
        "The latents of the scans do not lie where the prior has them",
        f"Under the prior each dimension has mean 0 and standard deviation 1; here {len(away)} of "
        f"{len(mean)} do not come near that ({_listed([f'z{k}' for k in away])}: means up to "
        f"{np.abs(mean).max():.2g} from 0, standard deviations {spread.min():.2g} to "
        f"{spread.max():.2g}). Samples from the prior then look unlike the scans. Training longer, or "
        "a larger beta, brings them together.",
    )


def on_baseline(group: Group) -> Verdict | None:
    """Whether as many principal components do clearly better."""
    if not group.baseline or group.error <= _BEHIND * group.baseline:
        return None
    return Verdict(
        "bad",
        "Principal components of the same number reconstruct clearly better",
        f"Their error is {group.baseline:.3g} on the {group.name}, that of the model {group.error:.3g}: it has "
        "learnt less than a linear model. Train longer, or with another learning rate or network.",
    )


def on_generalisation(data: Group, val: Group) -> Verdict:
    """How held-out scans fare beside the others."""
    ratio = val.error / data.error if data.error else float("inf")
    told = (
        f"The error of reconstructions is {val.error:.3g} on held-out scans and {data.error:.3g} on the "
        f"{data.name}."
    )
    if ratio > _UNSEEN_GAP:
        return Verdict(
            "warn",
            "Held-out scans are reconstructed clearly worse",
            f"{told} Either the model has learnt scans that it was trained on by heart, or the held-out ones "
            "differ from them (site, age, preparation). Trust the held-out numbers.",
        )
    return Verdict("good", "Held-out scans are reconstructed about as well", told)


def cautions(facts: Facts) -> list[Verdict]:
    """What to know before any number is read."""
    found: list[Verdict] = []
    if facts.apart is not None:
        found += _on_overlap(facts.apart)
    count = len(facts.data.data)
    if count < 30:
        found.append(
            Verdict(
                "warn",
                f"Only {count} scan{'s' * (count != 1)}",
                "Correlations and probes of so few scans vary much by chance: read them as examples.",
            )
        )
    return found


def _on_overlap(apart: Apart) -> list[Verdict]:
    """What of the scans that were handed in as held out is not."""
    found, every = [], len(apart.data) + len(apart.same)
    if count := len(apart.same):
        found.append(
            Verdict(
                "bad",
                f"{count} of {every} held-out scans {_are(count)} also among the other scans",
                f"The same voxels, under whatever name: {_listed(apart.same)}. This page leaves them out of "
                "everything that it says of held-out scans.",
            )
        )
    if count := int(apart.of_known.sum()):
        ids = [name for name, known in zip(apart.data.ids, apart.of_known, strict=True) if known]
        found.append(
            Verdict(
                "warn",
                f"{count} of {len(apart.data)} held-out scans {_are(count)} of participants who are also "
                "among the other scans",
                f"By the names of participants: {_listed(ids)}. Linear probes leave them out; the held-out "
                "bound and errors count them, and may look better than they would for people who are "
                "new. If equal names are of different people, as in two studies, all that is amiss is "
                "that probes leave them out: rename them.",
            )
        )
    return found


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _listed(names: Sequence[str], most: int = 12) -> str:
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"
