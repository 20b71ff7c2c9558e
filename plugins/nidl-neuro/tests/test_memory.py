"""Memory of a fit on files: it does not grow with the number of scans."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

import nidl_core as nidl

FEW, MANY, SIZE = 40, 400, 32
ROW = 4 * SIZE**3  # bytes
NET = {"name": "mlp", "params": {"widths": [4]}}

# Prints the anonymous memory at its most, in bytes beyond what a first, small fit left.
SCRIPT = f"""
import json, pathlib, sys, threading, time
import nidl_core as nidl
from nidl_neuro import scans

def anonymous():
    text = pathlib.Path("/proc/self/smaps_rollup").read_text()
    return next(1024 * int(line.split()[1]) for line in text.splitlines() if "Anonymous:" in line)

def watch():
    while not done:
        most.append(anonymous())
        time.sleep(0.02)

def fit(data):
    nidl.build("vae", encoder={NET!r}, decoder={NET!r}, likelihood="normal", latent_dim=2, max_epochs=2,
               batch_size=8, random_state=0, enable_progress_bar=False).fit(data)

paths, cache, done = sorted(map(str, pathlib.Path(sys.argv[1]).glob("*.nii.gz"))), sys.argv[2], []
prepared = {{"mask": "none"}}
fit(scans(paths[:16], prepared, cache=cache + "/few"))
base, most = anonymous(), []
watcher = threading.Thread(target=watch)
watcher.start()
data = scans(paths, prepared, cache=cache, workers=1)
if sys.argv[3:] == ["all"]:
    data = data.x[:]
fit(data)
done.append(True)
watcher.join()
print(json.dumps(max(most) - base))
"""


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    """Folders of few and of many files, all of different content."""
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("this system does not tell how much memory a process holds")
    try:
        nidl.build("vae", encoder=NET, decoder=NET, likelihood="normal")
    except nidl.NidlError as err:
        pytest.skip(f"other plugins are not installed: {err}")
    folder, rng = tmp_path_factory.mktemp("cohorts"), np.random.default_rng(0)
    image = nibabel.Nifti1Image(rng.integers(1, 9, (SIZE,) * 3, dtype="u1"), np.eye(4)).to_bytes()
    voxels = gzip.compress(image[348:], 1)
    for number in range(MANY):
        header = nibabel.Nifti1Header(image[:348])
        header["descrip"] = f"file {number}"
        packed = gzip.compress(header.binaryblock) + voxels  # a gzip file may have several parts
        for name in ("many", *["few"] * (number < FEW)):
            (folder / name).mkdir(exist_ok=True)
            (folder / name / f"{number:03}.nii.gz").write_bytes(packed)
    return folder


def peak(folder: Path, cache: Path, *more: str) -> int:
    told = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), str(cache), *more],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(told.stdout.splitlines()[-1])


def test_ten_times_the_scans_take_no_more_memory(cohorts, tmp_path):
    few = peak(cohorts / "few", tmp_path / "few")
    many = peak(cohorts / "many", tmp_path / "many")
    bound = few + (MANY - FEW) * ROW // 2  # half of what all of them would add
    assert many < bound
    assert peak(cohorts / "many", tmp_path / "many", "all") > bound  # the measure sees what is held
