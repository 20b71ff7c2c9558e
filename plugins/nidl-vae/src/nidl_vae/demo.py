"""`nidl demo digits`: the main job from end to end, on scikit-learn's handwritten digits.

Each number that it prints comes from the run. The baseline is probabilistic PCA with as many
latents: the best linear model with the same kind of noise, its likelihood exact
(Tipping & Bishop 1999). The VAE's figure is a lower bound on its likelihood.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import nidl_core as nidl
from nidl_core.errors import NidlError

LATENT_DIM = 8
_RELOAD = """
import sys, numpy as np, nidl_core as nidl
model, data, out = sys.argv[1:]
vae = nidl.load(model)
np.savez(out, transform=vae.transform(np.load(data)), sample=vae.sample(16, seed=0).numpy())
"""


def digits(out: Path, *, epochs: int) -> None:
    """Train on digits, compare, draw, save, reload; what it makes lies in the folder `out`."""
    try:
        import matplotlib as mpl
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as err:
        raise NidlError(f"the demo needs {err.name}: pip install 'nidl-vae[demo]'") from err
    mpl.use("Agg")
    out.mkdir(parents=True, exist_ok=True)
    data = load_digits()
    x = (data.images / 16).astype(np.float32)[:, None]  # (1797, 1, 8, 8), in [0, 1]
    x_train, x_test, y_train, y_test = train_test_split(
        x, data.target, test_size=500, random_state=0, stratify=data.target
    )

    print(f"Handwritten digits: {len(x_train)} images to train on, {len(x_test)} held out, 8 x 8.")
    print(
        f"Model, by name: vae (cnn2d encoder and decoder, normal likelihood, {LATENT_DIM} latents)."
    )
    vae = nidl.build(
        "vae",
        encoder="cnn2d",
        decoder="cnn2d",
        likelihood={"name": "normal", "params": {"scale": "shared"}},
        latent_dim=LATENT_DIM,
        stochastic_transform=False,
        lr=2e-3,
        max_epochs=epochs,
        random_state=0,
    )
    start = time.perf_counter()
    vae.fit(x_train, val=x_test)
    print(f"Trained for {epochs} epochs in {time.perf_counter() - start:.0f} s.\n")

    _compare(vae, x_train, x_test, y_train, y_test)
    _draw(vae, x_test, y_test, out)
    _save_and_reload(vae, x_test, out)


def _compare(vae: Any, x_train: Any, x_test: Any, y_train: Any, y_test: Any) -> None:
    """Held-out likelihood and a linear probe of the latents, beside PCA of the same size."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    flat_train, flat_test = x_train.reshape(len(x_train), -1), x_test.reshape(len(x_test), -1)
    pca = PCA(vae.latent_dim).fit(flat_train)
    bound = vae.score_samples(x_test, K=64).mean()

    def probe(train: Any, test: Any) -> float:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        return float(model.fit(train, y_train).score(test, y_test))

    accuracy = (
        probe(vae.transform(x_train), vae.transform(x_test)),
        probe(pca.transform(flat_train), pca.transform(flat_test)),
    )
    errors = [
        float(np.square(x_test - back).mean()) ** 0.5
        for back in (
            vae.reconstruct(x_test),
            pca.inverse_transform(pca.transform(flat_test)).reshape(x_test.shape),
        )
    ]
    rows = [
        ("log-likelihood, nats per image", f">= {bound:.2f}", f"{pca.score(flat_test):.2f}"),
        ("evidence lower bound, nats per image", f"{vae.score(x_test):.2f}", ""),
        ("digit read from the latents (linear)", f"{accuracy[0]:.1%}", f"{accuracy[1]:.1%}"),
        ("reconstruction error (RMS)", f"{errors[0]:.3f}", f"{errors[1]:.3f}"),
    ]
    print(f"{'On the held-out images':<40}{'VAE':>10}{'PCA':>10}")
    for name, *figures in rows:
        print(f"{name:<40}{figures[0]:>10}{figures[1]:>10}")
    print(
        "(the VAE's likelihood is a lower bound with 64 samples; that of PCA as a Gaussian is exact)\n"
    )


def _draw(vae: Any, x: Any, y: Any, out: Path) -> None:
    from nidl_vae.figures import latent_map, reconstructions, samples

    figures = {
        "reconstructions.png": reconstructions(x, vae.reconstruct(x), y),
        "samples.png": samples(vae.sample(100, seed=0).numpy()),
        "latent_map.png": latent_map(vae.transform(x), x, y),
    }
    for name, figure in figures.items():
        figure.savefig(out / name, dpi=150, facecolor="white")
        print(f"Drawn: {out / name}")


def _save_and_reload(vae: Any, x: Any, out: Path) -> None:
    """Load the file in a fresh process, and compare bit for bit."""
    model, data, answers = out / "digits.nidl", out / "held_out.npy", out / "reloaded.npz"
    vae.save(model)
    np.save(data, x)
    print(
        f"Saved: {model} ({model.stat().st_size / 1024:.0f} KiB, JSON and safetensors, no pickle)"
    )
    subprocess.run([sys.executable, "-c", _RELOAD, model, data, answers], check=True)
    with np.load(answers) as reloaded:
        same = np.array_equal(reloaded["transform"], vae.transform(x)) and np.array_equal(
            reloaded["sample"], vae.sample(16, seed=0).numpy()
        )
    answers.unlink()
    if not same:
        raise NidlError(
            "the model loaded in a fresh process gives other answers: please report this."
        )
    print("Loaded in a fresh process: latents and samples agree bit for bit.")
