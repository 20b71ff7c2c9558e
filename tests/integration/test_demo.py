"""`nidl demo digits`: what it prints is what it did, and what it makes is there."""

import os
import re
import subprocess
import sys

import pytest

import nidl_core as nidl

pytest.importorskip("matplotlib", reason="the demo draws with matplotlib: nidl-vae[demo]")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    nidl_command = [sys.executable, "-W", "error", "-m", "nidl_core.cli"]
    run = subprocess.run(
        [*nidl_command, "demo", "digits", "--out", "made", "--epochs", "60"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        timeout=1200,  # 20 s, and much more beside others that use the same cores
    )
    assert run.returncode == 0, run.stderr
    return folder, run.stdout


def test_demo_beats_pca_of_the_same_size_on_held_out_images(demo):
    _, out = demo
    bound, baseline = re.search(r"log-likelihood.*>= *([-\d.]+) +([-\d.]+)", out).groups()

    assert float(bound) > float(baseline) + 5
    assert float(baseline) == pytest.approx(13.48, abs=0.05)  # exact, and the split is fixed


def test_demo_draws_three_figures_that_are_not_empty(demo):
    import matplotlib.image

    folder, _ = demo
    for name in ("reconstructions.png", "samples.png", "latent_map.png"):
        image = matplotlib.image.imread(folder / "made" / name)
        assert min(image.shape[:2]) > 400
        assert image[..., :3].std() > 0.05


def test_demo_saves_a_model_that_agrees_in_a_fresh_process(demo):
    folder, out = demo

    assert "Loaded in a fresh process: latents and samples agree bit for bit." in out
    assert nidl.load(folder / "made" / "digits.nidl").sample(2, seed=0).shape == (2, 1, 8, 8)


def test_demo_writes_nothing_outside_its_folder(demo):
    folder, _ = demo

    assert os.listdir(folder) == ["made"]
