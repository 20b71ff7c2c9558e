"""Fits on files that are killed, while they prepare or while they train: the next one goes on, and right."""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import signal
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nidl_core as nidl
from nidl_core.cli import main
from nidl_neuro import Preparation, scans
from nidl_neuro.datasets import synthetic_cohort
from nidl_neuro.index import JOURNAL, LOCK, Index

N, KILLS = 20, 20
PREPARATION = {"mask": "computed", "voxel_size": 5.0, "interpolation": "cubic"}  # some work
SPEC = """
name = "vae"
[params]
encoder = {{ name = "mlp", params = {{ widths = [8] }} }}
decoder = {{ name = "mlp", params = {{ widths = [8] }} }}
latent_dim = 2
max_epochs = 10
random_state = 0
batch_size = 4
enable_progress_bar = false
[data]
mask = "computed"
voxel_size = 5.0
interpolation = "cubic"
cache = '{cache}'
"""
MODULES = ["nidl_vae.vae", "nidl_backbones.mlp", "nidl_likelihoods", "nidl_neuro.data"]

pytestmark = pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(),
    reason="this system cannot fork a process that has imported everything",
)


class Fits:
    """`nidl fit` on one cohort, with one cache, in processes that have all imports behind them."""

    def __init__(self, folder: Path, cohort: Path) -> None:
        self.folder, self.cohort, self.cache = folder, cohort, folder / "cache"
        (folder / "vae.toml").write_text(SPEC.format(cache=self.cache))

    def start(self, out: str = "run") -> Any:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([*MODULES, "nidl_core.cli.watching"])
        words = ["fit", str(self.folder / "vae.toml"), "--data", str(self.cohort), "--overwrite"]
        # A daemon: should this test fail, pytest ends it.
        process = context.Process(
            target=main, args=([*words, "--out", str(self.folder / out)],), daemon=True
        )
        process.start()
        return process

    def rows(self) -> dict[str, bytes]:
        """The rows that count, each checked against the sum that was taken when it was made."""
        found = {}
        for store in self.cache.glob("*"):
            assert {path.name for path in store.iterdir() if path.suffix != ".rows"} <= {
                JOURNAL,
                LOCK,
            }
            for key, place in Index.read(store).rows.items():
                layout = place.layout
                size = layout.array_bytes + layout.mask_bytes
                with (store / layout.file).open("rb") as file:
                    file.seek(place.slot * layout.stride)
                    found[key] = file.read(size)
                assert zlib.crc32(found[key]) == place.checksum
        return found

    def model(self, out: str = "run") -> dict[str, torch.Tensor]:
        """The weights that a fit has saved."""
        return dict(nidl.load(self.folder / out / "model.nidl").state_dict())

    def until(self, process: Any, path: Path) -> None:
        """Wait until a file is there, or the process has ended."""
        deadline = time.monotonic() + 60
        while not path.exists() and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.005)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A folder of scans."""
    return synthetic_cohort(N, size=16).write(tmp_path_factory.mktemp("scans") / "cohort")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, cohort):
    """The rows and the weights of a fit that nothing disturbs."""
    fits = Fits(tmp_path_factory.mktemp("undisturbed"), cohort)
    if main(["explain", str(fits.folder / "vae.toml")]):
        pytest.skip("the VAE and its networks are not installed")
    assert ended(fits.start()) == 0
    return fits.rows(), fits.model()


def test_twenty_kills_leave_no_corrupt_row_and_the_next_fit_goes_on(tmp_path, cohort, undisturbed):
    rows, weights = undisturbed
    chance, kills, phases = random.Random(0), 0, set()
    while kills < KILLS:
        folder = tmp_path / str(kills)
        folder.mkdir()
        fits, kept = Fits(folder, cohort), 0
        for began in (fits.cache, fits.cache, folder / "run", folder / "run"):
            process = fits.start()
            fits.until(process, began)
            process.join(chance.uniform(0, 0.5))
            process.kill()
            kills += ended(process) == -signal.SIGKILL
            phases.add("training" if (folder / "run").exists() else "preparing")
            there = fits.rows()
            assert kept <= len(there) and there.items() <= rows.items()
            kept = len(there)
            if (folder / "run" / "model.nidl").exists():  # whole, or not there
                assert same(fits.model(), weights)
        assert ended(fits.start()) == 0
        assert fits.rows() == rows and same(fits.model(), weights)
        names = {path.name for path in (folder / "run").iterdir() if path.suffix != ".part"}
        assert names == {"model.nidl", "metrics.csv", "spec.json"}
        same_as_prepared_anew(fits, cohort)
    assert phases == {"preparing", "training"}


def test_a_fit_that_waits_for_a_killed_one_goes_on_in_its_place(tmp_path, cohort, undisturbed):
    rows, weights = undisturbed
    fits = Fits(tmp_path, cohort)
    first = fits.start("first")
    fits.until(first, fits.cache)
    second = fits.start("second")
    second.join(0.1)
    assert second.is_alive()
    first.kill()
    ended(first)
    assert ended(second) == 0
    assert fits.rows() == rows and same(fits.model("second"), weights)


def test_two_fits_at_once_share_the_rows(tmp_path, cohort, undisturbed):
    rows, weights = undisturbed
    fits = Fits(tmp_path, cohort)
    both = [fits.start(out) for out in ("first", "second")]
    assert [ended(process) for process in both] == [0, 0]
    assert fits.rows() == rows
    assert same(fits.model("first"), weights) and same(fits.model("second"), weights)
    (store,) = fits.cache.iterdir()
    (file,) = store.glob("*.rows")
    (layout,) = {place.layout for place in Index.read(store).rows.values()}
    assert file.stat().st_size == N * layout.stride  # none was made twice


def ended(process: Any) -> int:
    """Its exit status, once it has ended."""
    with contextlib.closing(process):
        process.join(120)
        assert process.exitcode is not None
        return process.exitcode


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def same_as_prepared_anew(fits: Fits, cohort: Path) -> None:
    """Assert that the rows are what the files give when they are prepared without a store."""
    data = scans(cohort, PREPARATION, cache=fits.cache)
    assert data.store.made == 0 and data.store.damaged() == []
    prepare = Preparation(**PREPARATION).prepare
    for row in range(0, N, 7):
        made = prepare(data.cohort[row].load())
        np.testing.assert_array_equal(data.x[row], made.array)
        np.testing.assert_array_equal(data.store.mask(row), made.mask)
