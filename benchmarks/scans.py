"""Epochs over `.nii.gz` files, by nidl-neuro and by others: seconds and memory, in one run.

    python benchmarks/scans.py [--scans 200] [--size 64] [--repeats 3] [--json FILE]

Writes synthetic volumes, makes environments for the others (build/benchmarks), and runs each of
contestants.py in processes of its own, in an order that is rotated from repeat to repeat. Tells
medians. "again" is the first epoch of a fresh process that finds what an earlier one left on the
disk. Files are in the system's page cache throughout. The times include no imports. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from contestants import CONTESTANTS
from environments import ROOT, python_with
from watching import watched

HERE = Path(__file__).resolve().parent
TIMES = ("first", "second", "again")
TOLERANCE = 1e-3  # in standard deviations of a scan


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description="nidl-neuro's store beside NIDL and MONAI")
    parser.add_argument("--scans", type=int, default=200)
    parser.add_argument("--size", type=int, default=64, help="voxels along an edge (64)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, len(_cores())])
    parser.add_argument("--only", nargs="+", default=list(CONTESTANTS), choices=CONTESTANTS)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "benchmarks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures, for programs")
    given = parser.parse_args()

    volumes = write(given.work / f"scans-{given.scans}-{given.size}", given.scans, given.size)
    pythons = {name: python_with(CONTESTANTS[name][1], given.work) for name in given.only}
    runs = [
        (name, processes)
        for name in given.only
        for processes in dict.fromkeys(given.processes)
        if pythons[name] is not None
    ]
    shape = given.size * 7 // 8 // 2 * 2
    results: dict[tuple[str, int], list[dict[str, Any]]] = {run: [] for run in runs}
    with tempfile.TemporaryDirectory(dir=given.work) as scratch:
        for repeat in range(given.repeats):
            for name, processes in runs[repeat % len(runs) :] + runs[: repeat % len(runs)]:
                found = measured(pythons[name], name, volumes, Path(scratch), shape, processes)
                results[name, processes].append(found)
                seconds = ", ".join(f"{kind} {_seconds(found, kind)}" for kind in TIMES)
                told = f"{repeat + 1}/{given.repeats} {name}, {processes}: {seconds} s"
                print(told, file=sys.stderr, flush=True)
        apart = compared(Path(scratch), given.only)
    rows = [summary(name, processes, found) for (name, processes), found in results.items()]
    print(table(rows, given, shape))
    for name, most in apart.items():
        print(f"largest difference of {name} from {given.only[0]}: {most:.1e} standard deviations")
        assert most < TOLERANCE, f"{name} does not deliver the same data"
    if given.json:
        about = {"scans": given.scans, "size": given.size, "shape": shape, **machine()}
        given.json.write_text(json.dumps({**about, "rows": rows, "apart": apart}, indent=1) + "\n")


def write(folder: Path, scans: int, size: int) -> Path:
    """A folder of synthetic scans as LAS files, which all have to turn round."""
    if (folder / "complete").exists():
        return folder
    import nibabel

    from nidl_neuro.datasets import synthetic_cohort

    print(f"writing {scans} volumes of {size}x{size}x{size} voxels", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for scan in synthetic_cohort(scans, size=size):
        affine = scan.affine @ np.diag([-1, 1, 1, 1])
        affine[:3, 3] += scan.affine[:3, 0] * (size - 1)
        image = nibabel.Nifti1Image(np.ascontiguousarray(scan.array[::-1]), affine)
        image.set_data_dtype(np.int16)
        nibabel.save(image, folder / f"{scan.id}_T1w.nii.gz")
    (folder / "complete").touch()
    return folder


def measured(
    python: Path | None, name: str, volumes: Path, scratch: Path, shape: int, processes: int
) -> dict[str, Any]:
    """One contestant from nothing (two epochs), and again in a fresh process (one)."""
    cache = Path(tempfile.mkdtemp(dir=scratch))
    script = [str(python), str(HERE / "contestants.py"), name, str(volumes), str(cache)]
    numbers = [str(shape), str(processes)]
    values = scratch / f"{name}.npy"
    env = {"NIDL_CACHE": str(cache)}
    told, most = watched([*script, *numbers, "2"], env)
    again, _ = watched([*script, *numbers, "1", "--values", str(values)], env)
    disk = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    shutil.rmtree(cache)
    (first, second), (first_cpu, second_cpu) = told["seconds"], told["cpu"]
    return {
        "first": first,
        "second": second,
        "again": again["seconds"][0],
        "first cpu": first_cpu,
        "second cpu": second_cpu,
        "again cpu": again["cpu"][0],
        "memory": most["pss"] - told["base"],
        "whole memory": most["pss"],
        "disk": disk,
        "versions": told["versions"],
    }


def compared(scratch: Path, names: list[str]) -> dict[str, float]:
    """How far the voxels of each are from those of the first."""
    found = {name: scratch / f"{name}.npy" for name in names}
    kept = {name: np.load(path) for name, path in found.items() if path.exists()}
    reference = kept.pop(names[0])
    return {name: float(np.abs(values - reference).max()) for name, values in kept.items()}


def summary(name: str, processes: int, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the repeats, and the repeats themselves."""
    kinds = [kind for kind in found[0] if kind != "versions"]
    medians = {kind: statistics.median(one[kind] for one in found) for kind in kinds}
    repeats = [{kind: one[kind] for kind in kinds} for one in found]
    return {
        "name": name,
        "processes": processes,
        **medians,
        "repeats": repeats,
        "versions": found[0]["versions"],
    }


def table(rows: list[dict[str, Any]], given: argparse.Namespace, shape: int) -> str:
    """The medians as Markdown."""
    lines = [
        f"{given.scans} volumes of {given.size}³ voxels, prepared to {shape}³; batches of 8; medians of "
        f"{given.repeats}; {len(_cores())} cores",
        "",
        "| | processes | first epoch, s | second, s | again, s | memory, MiB | on disk, MiB |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        times = [_seconds(row, kind) for kind in TIMES]
        sizes = [f"{row[kind] / 2**20:.0f}" for kind in ("memory", "disk")]
        cells = [row["name"], str(row["processes"]), *times, *sizes]
        lines.append(f"| {' | '.join(cells)} |")
    told: dict[str, str] = {}
    for row in rows:
        told.update(row["versions"])
    lines += ["", ", ".join(f"{name} {number}" for name, number in told.items())]
    lines.append("In brackets: seconds of processors, which other programs disturb less.")
    lines.append("Memory: what the process and its workers hold at most, less what imports take.")
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cores": len(_cores()),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def _seconds(row: dict[str, Any], kind: str) -> str:
    """On the clock, and of processors."""
    return f"{row[kind]:.2f} ({row[f'{kind} cpu']:.2f})"


def _cores() -> set[int]:
    return os.sched_getaffinity(0)


if __name__ == "__main__":
    main()
