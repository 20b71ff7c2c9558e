"""What this plugin answers to nidl's hooks: scans as data, answers as tables and images. Imports nothing heavy."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from nidl_core.hooks import hookimpl

# What a spec may say beside the parameters of the preparation: arguments of `scans`.
_FINDING = {
    *("cache", "derivatives", "path_column", "pattern", "root", "skip_bad", "strict", "workers"),
}
_OTHERS = (".npy", ".npz", ".pt", ".h5", ".nidl")  # files that are no scans: no need to look


@hookimpl
def nidl_cli_commands(subparsers: argparse._SubParsersAction[Any]) -> None:
    """maps, deviation, traverse, report, cache."""
    from nidl_neuro import commands

    commands.add(subparsers)


@hookimpl
def nidl_cli_demos(subparsers: argparse._SubParsersAction[Any]) -> None:
    """brains: synthetic scans in, maps and a report out."""
    demo = subparsers.add_parser(
        "brains", help="train a VAE on synthetic brain scans; maps, scores and a report of them"
    )
    demo.add_argument(
        "--out", type=Path, default=Path("nidl-demo"), help="folder for what it makes (nidl-demo)"
    )
    demo.add_argument("--scans", type=int, default=100, help="people to train on (100)")
    demo.add_argument("--epochs", type=int, help="passes over the scans")
    demo.add_argument("--size", type=int, help="voxels from back to front (64, of 3 mm)")
    demo.add_argument("--seed", type=int, help="which people (0)")
    demo.set_defaults(run=_brains)


def _brains(arguments: argparse.Namespace) -> int:
    from nidl_neuro.demo import brains

    chosen = {name: getattr(arguments, name) for name in ("scans", "epochs", "size", "seed")}
    brains(arguments.out, **{name: value for name, value in chosen.items() if value is not None})
    return 0


@hookimpl
def nidl_writer(out: Path, verb: str) -> Any:
    """Latents as a table, reconstructions as images in a folder, samples as one 4-D image."""
    name = out.name.lower()
    if verb == "transform" and name.endswith(".tsv"):
        from nidl_neuro.writers import LatentsTable

        return LatentsTable(out)
    if verb == "reconstruct" and not out.suffix:
        from nidl_neuro.writers import ImageFolder

        return ImageFolder(out)
    if verb == "sample" and name.endswith((".nii", ".nii.gz")):
        from nidl_neuro.writers import Volumes

        return Volumes(out)
    return None


@hookimpl(trylast=True)  # it takes every folder and table
def nidl_as_dataset(data: Any, spec: Any) -> Any:
    """Paths, globs, folders, images and tables of scans, prepared as those of the fit."""
    if isinstance(data, (str, os.PathLike)) and str(data).lower().endswith(_OTHERS):
        return None
    from nidl_neuro.reading import is_source

    if not is_source(data):
        return None
    from nidl_neuro.data import scans

    wanted = dict(spec or {})
    finding = {name: wanted.pop(name) for name in _FINDING & wanted.keys()}
    return scans(data, wanted, **finding)
