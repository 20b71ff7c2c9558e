"""`nidl demo brains`: scans in, scans out, on synthetic brains whose causes are known.

Each number that it prints comes from the run.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import nidl_core as nidl
from nidl_core.errors import InvalidParameter, NidlError
from nidl_core.parameters import check_int
from nidl_neuro.data import Scans
from nidl_neuro.data import scans as prepared
from nidl_neuro.demonstration.people import HELD_OUT, LESIONED, TRAIN, People, write_people
from nidl_neuro.demonstration.tables import print_comparison, print_lesions

LATENT_DIM = 16  # at most a quarter of the scans to train on
# Little is lost on the way to the latents: no normalization, which would take away how much brain
# there is, and maps that are still large where they are flattened. So it learns in a few hundred steps.
_ENCODER = {"widths": [8, 16, 16], "activation": "silu", "normalization": None}
_DECODER = {"widths": [16], "activation": "silu"}
_LEARNING_RATE = 2e-3
# What the crop keeps of the grid, in parts of `size`: all of the brain, and little else.
_BRAIN = (0.75, 0.93, 0.81)
_RELOAD = """
import sys, numpy as np, nidl_core as nidl
from nidl_neuro import scans
model, data, cache, out = sys.argv[1:]
vae = nidl.load(model)
np.save(out, vae.transform(scans(data, vae.data_spec_, cache=cache)))
"""


def brains(out: Path, *, scans: int = 100, epochs: int = 16, size: int = 64, seed: int = 0) -> None:
    """Write scans, fit, compare, find lesions, report; what it makes lies in the folder `out`.

    scans: how many to train on; a third as many are held out, and a sixth as many have a lesion.
    size: voxels from back to front, of (7/8 size, size, 7/8 size) in all; 64 are voxels of 3 mm.
    seed: which people.

    Raises `InvalidParameter`, and `NidlError` without matplotlib.
    """
    _check(scans, epochs, size, seed)
    start = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    grid = (size * 7 // 8, size, size * 7 // 8)
    people = People(scans, max(8, scans // 3), max(4, scans // 6), grid, seed)
    _write(people, out / "scans")
    train, held_out, lesioned = _prepare(size, out)
    vae = _fit(train, held_out, epochs, min(LATENT_DIM, scans // 4))
    print_comparison(vae, train, held_out)
    print_lesions(vae, train, held_out, lesioned, out / "scans" / LESIONED)
    _draw(vae, train, held_out, lesioned, out)
    _save_and_reload(vae, held_out, out)
    _report(vae, train, held_out, out, start)


def _check(scans: int, epochs: int, size: int, seed: int) -> None:
    try:
        import matplotlib as mpl
    except ImportError as err:
        raise NidlError("the demo needs matplotlib: pip install 'nidl-neuro[figures]'") from err
    mpl.use("Agg")
    check_int("scans", scans, least=16)
    check_int("epochs", epochs, least=1)
    check_int("seed", seed, least=0)
    if not isinstance(size, int) or size % 8 or not 16 <= size <= 128:
        raise InvalidParameter("size", size, "a multiple of 8, from 16 to 128")


def _write(people: People, folder: Path) -> None:
    start = time.perf_counter()
    total, voxels = people.train + people.held_out + people.lesioned, _by(people.size)
    if not write_people(people, folder):
        print(f"Synthetic scans of an earlier run: {total}, {voxels} voxels, in {folder}")
        return
    seconds = time.perf_counter() - start
    print(
        f"Written: {total} synthetic T1-weighted scans, {voxels} voxels, in {seconds:.0f} s: {folder}\n"
        "(nobody was scanned; nothing here is evidence about brains)"
    )


def _prepare(size: int, out: Path) -> list[Scans]:
    """The three folders as data, prepared alike."""
    preparation = {
        "mask": "computed",  # the brain of MNI152, to which these scans are aligned
        "shape": tuple(math.ceil(part * size) for part in _BRAIN),
        "intensity": "zscore",
    }
    found = [
        prepared(out / "scans" / name, preparation, cache=out / "cache")
        for name in (TRAIN, HELD_OUT, LESIONED)
    ]
    train, held_out, lesioned = map(len, found)
    inside = int(np.asarray(found[0].mask).sum())
    print(
        f"Prepared: {train} to train on, {held_out} held out, {lesioned} with a lesion; each of\n"
        f"{_by(found[0].shape[2:])} voxels, {inside} of them in the brain, z-scored there.\n"
    )
    return found


def _fit(train: Scans, held_out: Scans, epochs: int, latent_dim: int) -> Any:
    """Train; the last quarter of the epochs at a fifth of the learning rate, as a warm start."""
    print(
        f"Model, by name: vae (cnn3d encoder and decoder, normal likelihood with a scale for each\n"
        f"voxel, {latent_dim} latents)."
    )
    last = epochs // 4
    vae = nidl.build(
        "vae",
        encoder={"name": "cnn3d", "params": _ENCODER},
        decoder={"name": "cnn3d", "params": _DECODER},
        likelihood={"name": "normal", "params": {"scale": "learned", "min_scale": 0.02}},
        latent_dim=latent_dim,
        stochastic_transform=False,
        lr=_LEARNING_RATE,
        batch_size=2,
        max_epochs=epochs - last,
        warm_start=True,
        random_state=0,
    )
    start = time.perf_counter()
    vae.fit(train, val=held_out)
    if last:
        history = vae.history_
        vae.set_params(lr=_LEARNING_RATE / 5, max_epochs=last).fit(train, val=held_out)
        vae.history_ = history + [
            {**row, "epoch": row["epoch"] + len(history)} for row in vae.history_
        ]
    slower = f", the last {last} of them at a fifth of the learning rate" if last else ""
    print(f"Trained for {epochs} epochs in {time.perf_counter() - start:.0f} s{slower}.\n")
    return vae


def _draw(vae: Any, train: Scans, held_out: Scans, lesioned: Scans, out: Path) -> None:
    from nidl_neuro.decoding import posterior
    from nidl_neuro.demonstration.drawing import draw_lesion, draw_reconstructions, write_ageing
    from nidl_neuro.maps import write_maps
    from nidl_neuro.outputs import write_latents

    print(f"Drawn: {draw_reconstructions(vae, held_out, out / 'reconstructions.png')}")
    for path in write_ageing(vae, train, out):
        print(f"Drawn: {path}")
    found = draw_lesion(vae, held_out, lesioned, out / "scans" / LESIONED, out / "lesion.png")
    print(f"Drawn: {found}")
    maps = write_maps(vae, lesioned, out / "maps", overwrite=True, progress=False)
    count = sum(map(len, maps.values()))
    print(f"Written: {count} maps of the lesioned, each on its scan's own grid: {out / 'maps'}")
    table = write_latents(out / "latents.tsv", held_out, *posterior(vae, held_out), overwrite=True)
    print(f"Written: the latents of those held out: {table}")


def _save_and_reload(vae: Any, held_out: Scans, out: Path) -> None:
    """Load the file in a fresh process, read the scans there, and compare bit for bit."""
    model, answers = out / "brains.nidl", out / "reloaded.npy"
    vae.save(model)
    print(
        f"Saved: {model} ({model.stat().st_size / 1024:.0f} KiB, JSON and safetensors, no pickle)"
    )
    command = [sys.executable, "-c", _RELOAD]
    command += map(str, (model, out / "scans" / HELD_OUT, out / "cache", answers))
    subprocess.run(command, check=True)
    same = np.array_equal(np.load(answers), _array(vae.transform(held_out)))
    answers.unlink()
    if not same:
        raise NidlError(
            "the model loaded in a fresh process gives other latents: please report this."
        )
    print("Loaded in a fresh process: the latents of the held-out scans agree bit for bit.")


def _report(vae: Any, train: Scans, held_out: Scans, out: Path, start: float) -> None:
    from nidl_neuro.report import write_report

    title = "A VAE of synthetic brain scans"
    path = write_report(vae, train, out / "report.html", val=held_out, title=title)
    print(f"All of it took {time.perf_counter() - start:.0f} s.\n")
    print(f"The report, one page for any browser: {path.resolve()}")


def _array(values: Any) -> Any:
    """Of a tensor."""
    return np.asarray(values)


def _by(counts: Any) -> str:
    return " x ".join(map(str, counts))
