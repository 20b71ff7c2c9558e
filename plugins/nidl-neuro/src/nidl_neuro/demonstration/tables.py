"""The tables that the demo prints: the VAE beside linear models, and the lesions that it finds.

The linear models have as many latents and are fitted on the same voxels of the same scans; their
likelihoods are exact. The VAE's figure is a lower bound.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from nidl_neuro.data import Scans
from nidl_neuro.decoding import counted
from nidl_neuro.demonstration.finding import found_people, found_voxels
from nidl_neuro.demonstration.linear import FactorAnalysis, ProbabilisticPCA, read_off
from nidl_neuro.deviation import Deviation

_COVARIATES = {"age": ("age", "years"), "ventricle_ml": ("ventricle volume", "ml")}


def print_comparison(vae: Any, train: Scans, held_out: Scans) -> None:
    """Held-out likelihoods, errors, and what can be read from the latents, beside linear models."""
    mask = counted(vae)
    pca = ProbabilisticPCA(train.x, mask, vae.latent_dim)
    factors = FactorAnalysis(train.x, mask, vae.latent_dim)
    bounds = [
        vae.score(held_out),
        float(pca.log_likelihood(held_out.x).mean()),
        float(factors.log_likelihood(held_out.x).mean()),
    ]
    voxels = int(mask.sum())
    missed = (np.asarray(vae.reconstruct(held_out)) - held_out.x[:])[:, 0][:, mask]
    errors = [_rms(missed), math.sqrt(pca.pca.transform(held_out.x)[1].mean() / voxels)]
    print(f"{'On the held-out scans':<44}{'VAE':>12}{'PCA':>12}{'FA':>12}")
    _row("log-likelihood, nats per scan", f">= {bounds[0]:.0f}", *(f"{b:.0f}" for b in bounds[1:]))
    _row("the same, bits per voxel", *(f"{-b / voxels / math.log(2):.3f}" for b in bounds))
    _row("reconstruction error (RMS)", *(f"{error:.3f}" for error in errors))
    latents = [np.asarray(vae.transform(data)) for data in (train, held_out)]
    scores = [pca.pca.scores, pca.pca.transform(held_out.x)[0]]
    for covariate, (name, unit) in _COVARIATES.items():
        y = [data.covariates[covariate].to_numpy(float) for data in (train, held_out)]
        found = [read_off(*features, *y) for features in (latents, scores)]
        _row(f"{name} from latents (linear), R2", *(f"{r2:.2f}" for r2, _ in found))
        _row(f"    mean error, {unit}", *(f"{error:.1f}" for _, error in found))
    best = ("the VAE", "PCA", "FA")[int(np.argmax(bounds))]
    print(
        f"(PCA: probabilistic PCA, one scale for all voxels; FA: factor analysis, one for each, as the\n"
        f"VAE has; their likelihoods are exact, the VAE's is a lower bound. The scans are likeliest under\n"
        f"{best}. Bits: less is better, below 0 is possible. All learnt from the scans to train on.)\n"
    )


def print_lesions(vae: Any, train: Scans, held_out: Scans, lesioned: Scans, folder: Path) -> None:
    """How well lesions are found, voxel by voxel and person by person; `folder` is the lesioned's."""
    voxels = found_voxels(vae, held_out, lesioned, folder)
    print(f"{f'Lesions of {len(lesioned)} others, in voxels':<56}{'AUC':>8}{'AP':>8}{'Dice':>8}")
    for name, row in voxels.iterrows():
        print(f"{name:<56}{row['auc']:>8.3f}{row['precision']:>8.3f}{row['dice']:>8.3f}")
    chance = voxels["chance"].iloc[0]
    print(
        f"(AP: average precision, by guessing {chance:.4f}; Dice at the threshold that the truth says is\n"
        f"best; controls: those held out)\n"
    )
    deviation = Deviation(vae, per_voxel=True).fit(held_out, train)
    people = found_people(deviation, lesioned)
    print(f"{f'Lesions of {len(lesioned)} others, in people':<56}{'AUC':>8}{'p <= 0.05':>16}")
    for name, row in people.iterrows():
        flagged = f"{row['flagged']:.0f} of {len(lesioned)}"
        print(f"{name:<56}{row['auc']:>8.3f}{flagged:>16}")
    print(
        f"(deviation scores, calibrated on the {len(held_out)} held out: no p-value is below "
        f"1/{len(held_out) + 1})\n"
    )


def _row(name: str, *figures: str) -> None:
    print(f"{name:<44}" + "".join(f"{figure:>12}" for figure in figures))


def _rms(values: Any) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))
