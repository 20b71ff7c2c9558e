"""Networks of MONAI and timm in a VAE: trained, saved, and missed where their adapter is not installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nidl_core as nidl

MODELS = {
    "nidl-monai": (
        {"name": "monai", "params": {"model": "resnet10", "model_args": {"widen_factor": 0.125}}},
        "cnn3d",
        (1, 17, 20, 18),
    ),
    "nidl-timm": ({"name": "timm", "params": {"model": "test_resnet"}}, "cnn2d", (3, 33, 40)),
}
LOAD = """
import sys
import nidl_core as nidl

try:
    nidl.load(sys.argv[1])
except nidl.NidlError as err:
    print(type(err).__name__, err)
"""


@pytest.fixture(params=MODELS)
def trained(request: pytest.FixtureRequest) -> tuple[str, Any, Any]:
    """Name of an adapter, a VAE with an encoder of its library after eight steps, its data."""
    encoder, decoder, shape = MODELS[request.param]
    x = np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)
    small = {"name": decoder, "params": {"widths": [8, 4]}}
    vae = nidl.build(
        "vae",
        encoder=encoder,
        decoder=small,
        likelihood="normal",
        latent_dim=4,
        batch_size=4,
        lr=1e-2,
        max_epochs=4,
        random_state=0,
    )
    return request.param, vae.fit(x), x


def test_an_adapted_network_trains_and_comes_back_from_its_file(
    trained: tuple[str, Any, Any], tmp_path: Path
) -> None:
    _, vae, x = trained
    vae.save(tmp_path / "model.nidl")
    again = nidl.load(tmp_path / "model.nidl")

    assert vae.transform(x).shape == (8, 4)
    assert vae.reconstruct(x).shape == x.shape
    assert vae.history_[0]["train/loss"] > vae.history_[-1]["train/loss"]
    np.testing.assert_array_equal(again.transform(x), vae.transform(x))


def test_without_the_adapter_the_error_says_exactly_what_to_install(
    trained: tuple[str, Any, Any], tmp_path: Path
) -> None:
    adapter, vae, _ = trained
    vae.save(tmp_path / "model.nidl")
    bare = tmp_path / "site"
    link_all_but(adapter, bare)
    done = subprocess.run(
        [sys.executable, "-S", "-c", LOAD, str(tmp_path / "model.nidl")],
        env={**os.environ, "PYTHONPATH": str(bare)},
        cwd=bare,
        capture_output=True,
        text=True,
        check=False,
    )
    name = adapter.removeprefix("nidl-")

    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"MissingComponents this model needs encoder '{adapter}:{name}'. "
        f"As its file says: pip install '{adapter}>=0.1.0,<0.2'\n"
    )


def link_all_but(adapter: str, folder: Path) -> None:
    """An environment as this one, without a distribution and the library that it adapts."""
    library = adapter.removeprefix("nidl-")
    gone = (adapter.replace("-", "_"), library)
    folder.mkdir()
    for source in Path(sysconfig.get_path("purelib")).iterdir():
        if not source.name.startswith(gone):
            (folder / source.name).symlink_to(source)
    for package in ("nidl_core", "nidl_vae", "nidl_backbones", "nidl_likelihoods"):
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        if not (folder / package).exists():  # installed in place
            (folder / package).symlink_to(Path(spec.origin).parent)
