"""How much memory a fit on scans takes, by the size of the cohort, and whether it keeps to a limit.

    python benchmarks/memory.py [--scans 200 500 1000 2000 4000] [--size 48] [--json FILE]
        [--figure docs/figures/scans_memory.svg]

For each size a process of its own prepares that many `.nii.gz` files into a new store and fits a VAE
for one epoch. Told is the most that it and its workers held at any time: memory that no file stands
behind (what the system cannot take back), and all of it (RSS). Then the largest cohort is fitted once
more by a process that may take a tenth of the cohort's bytes beyond its imports. Linux only.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from watching import held, watched

ROOT = Path(__file__).resolve().parent.parent
BRAINS = 20  # different ones; the files differ in their headers too, and each is a row of the store

LEAST = 100 * 2**20  # bytes that a fit of this size needs for anything but data


def main() -> None:
    """Measure, tell, draw."""
    parser = argparse.ArgumentParser(description="memory of a fit by the number of scans")
    parser.add_argument("--scans", type=int, nargs="+", default=[200, 500, 1000, 2000, 4000])
    parser.add_argument("--size", type=int, default=48, help="voxels along an edge (48)")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "benchmarks")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--figure", type=Path, metavar="FILE")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)  # measure this folder
    parser.add_argument("--allowed", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(fit(given.one, given.allowed)))
        return
    given.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.work) as scratch:
        rows = [one(Path(scratch), scans, given.size) for scans in sorted(given.scans)]
        print(table(rows, given.size), flush=True)
        allowed = rows[-1]["bytes"] // 10
        limited = {}
        if allowed >= LEAST:
            limited = one(Path(scratch), max(given.scans), given.size, allowed)
            print(
                f"\n{limited['scans']} scans, {_mib(limited['bytes'])} MiB of float32, with "
                f"{_mib(allowed)} MiB allowed beyond the imports: trained for {limited['steps']} "
                f"steps. All of them in one array: {limited['whole']}"
            )
    if given.json:
        told = {"size": given.size, "rows": rows, "limited": {**limited, "allowed": allowed}}
        given.json.write_text(json.dumps(told, indent=1) + "\n")
    if given.figure:
        draw(rows, given.figure)


def one(scratch: Path, scans: int, size: int, allowed: int = 0) -> dict[str, Any]:
    """A process with that many scans and a store of its own."""
    folder = write(scratch / str(scans), scans, size)
    command = [sys.executable, __file__, "--one", str(folder), "--allowed", str(allowed)]
    told, most = watched(command, {"NIDL_CACHE": str(folder / "cache")})
    shutil.rmtree(folder)
    for name in ("anonymous", "rss"):
        told[name], told[f"{name} of data"] = most[name], most[name] - told["base"][name]
    line = f"{scans} scans: at most {_mib(told['anonymous of data'])} MiB beyond the imports"
    print(line, file=sys.stderr, flush=True)
    return told


def write(folder: Path, scans: int, size: int) -> Path:
    """That many files of int16 voxels. A gzip file may have several parts: here header and voxels."""
    import nibabel
    import numpy as np

    from nidl_neuro.datasets import synthetic_cohort

    folder.mkdir()
    brains = []
    for scan in synthetic_cohort(BRAINS, size=size):
        image = nibabel.Nifti1Image(np.round(1000 * scan.array).astype(np.int16), scan.affine)
        content = image.to_bytes()
        brains.append((content[:348], gzip.compress(content[348:], 1)))
    for number in range(scans):
        head, voxels = brains[number % BRAINS]
        header = nibabel.Nifti1Header(head)
        header["descrip"] = f"file {number}"
        content = gzip.compress(header.binaryblock, 1) + voxels
        (folder / f"sub-{number:05}_T1w.nii.gz").write_bytes(content)
    return folder


def fit(folder: Path, allowed: int) -> dict[str, Any]:
    """Prepare the scans in a folder and fit on them, in this process."""
    import nidl_core as nidl
    from nidl_neuro import scans

    def vae() -> Any:
        net = {"name": "mlp", "params": {"widths": [8]}}  # quick: the data are the point
        return nidl.build(
            "vae",
            encoder=net,
            decoder=net,
            likelihood="normal",
            latent_dim=4,
            batch_size=8,
            max_epochs=1,
            random_state=0,
            enable_progress_bar=False,
        )

    preparation = {"mask": "none"}
    few = sorted(folder.glob("*.nii.gz"))[:16]
    vae().fit(scans(few, preparation, cache=folder / "few"))  # imports, pools of threads
    base = held()
    if allowed:
        now = int(_status("VmData")) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (now + allowed, now + allowed))
    data = scans(folder, preparation)
    assert data.store.made == len(data) and len({*data.store.slots.tolist()}) == len(data)
    model = vae().fit(data)
    told = {
        "scans": len(data),
        "bytes": data.store.layout.array_bytes * len(data),
        "base": base,
        "steps": -(-len(data) // 8) * len(model.history_),
        "cores": len(os.sched_getaffinity(0)),
    }
    if allowed:
        try:
            told["whole"] = f"fits ({data.x[:].nbytes} bytes)"
        except MemoryError as err:
            told["whole"] = f"MemoryError: {err}"
    return told


def table(rows: list[dict[str, Any]], size: int) -> str:
    """The peaks as Markdown."""
    lines = [
        f"volumes of {size}³ voxels, one epoch in batches of 8; MiB; {rows[0]['cores']} cores",
        "",
        "| scans | as float32 | memory without a file behind it | of it beyond the imports | RSS |",
        "|--:|--:|--:|--:|--:|",
    ]
    kinds = ("bytes", "anonymous", "anonymous of data", "rss")
    for row in rows:
        lines.append(f"| {row['scans']} | {' | '.join(_mib(row[kind]) for kind in kinds)} |")
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Memory beyond the imports, and what all scans would take, by the number of scans."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "nidl"
    scans = [row["scans"] for row in rows]
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    everything = [row["bytes"] / 2**20 for row in rows]
    taken = [row["anonymous of data"] / 2**20 for row in rows]
    axes.plot(scans, everything, "--", color="#888888")
    axes.annotate(
        "all scans as float32",
        (scans[-1], everything[-1]),
        (-8, -2),
        textcoords="offset points",
        ha="right",
        color="#666666",
    )
    axes.plot(scans, taken, "o-", color="#1f5fa8")
    axes.annotate(
        "peak of preparing and fitting,\nworker processes included",
        (scans[-1], taken[-1]),
        (-8, 10),
        textcoords="offset points",
        ha="right",
        color="#1f5fa8",
    )
    axes.set_xlabel("scans")
    axes.set_ylabel("memory beyond the imports, MiB")
    axes.set_ylim(0)
    axes.set_xlim(0, scans[-1] * 1.03)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _status(name: str) -> str:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return line.split()[1]
    raise KeyError(name)


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f}"


if __name__ == "__main__":
    main()
