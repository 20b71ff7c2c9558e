"""The commands of this plugin: maps, deviation, traverse, cache. Nothing heavy is imported before one runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Add them to `nidl`."""
    maps = _command(commands, "maps", "reconstructions, residuals and z-maps of scans, as images")
    _scans(maps)
    maps.add_argument("--out", required=True, type=Path, metavar="FOLDER")
    maps.add_argument(
        "--kinds",
        nargs="+",
        default=["reconstruction", "residual", "zmap"],
        metavar="KIND",
        help="of reconstruction, residual, zmap (all)",
    )
    maps.add_argument("--overwrite", action="store_true", help="replace maps that are there")
    maps.set_defaults(run=_maps)

    deviation = _command(commands, "deviation", "how unusual scans are, calibrated on controls")
    _scans(deviation)
    deviation.add_argument(
        "--controls", required=True, metavar="DATA", help="scans that the model was not fitted on"
    )
    deviation.add_argument("--reference", metavar="DATA", help="others, such as those of the fit")
    deviation.add_argument("--per-voxel", action="store_true", help="z-maps relative to controls")
    deviation.add_argument("--out", required=True, type=Path, metavar="SCORES.tsv")
    deviation.add_argument("--overwrite", action="store_true", help="replace a table that is there")
    deviation.set_defaults(run=_deviation)

    traverse = _command(commands, "traverse", "volumes along a latent dimension, as one 4-D image")
    traverse.add_argument("--dimension", type=int, default=0, help="which (0)")
    traverse.add_argument("--reach", type=float, default=3.0, help="standard deviations (3)")
    traverse.add_argument("--steps", type=int, default=7, help="an odd number (7)")
    traverse.add_argument("--out", required=True, type=Path, metavar="OUT.nii.gz")
    traverse.add_argument("--overwrite", action="store_true", help="replace an image that is there")
    traverse.set_defaults(run=_traverse)

    cache = commands.add_parser(
        "cache", help="prepared scans on this disk: how much, and remove them"
    )
    cache.add_argument(
        "--clear", action="store_true", help="remove all that no process is building"
    )
    cache.set_defaults(run=_cache)


def _command(
    commands: argparse._SubParsersAction[Any], name: str, help: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=help)
    command.add_argument("model", metavar="MODEL", type=Path, help="a .nidl file")
    return command


def _scans(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data", required=True, metavar="DATA", help="scans")
    command.add_argument(
        "--skip-bad", action="store_true", help="leave out scans that cannot be used, and list them"
    )


def _maps(arguments: argparse.Namespace) -> int:
    from nidl_neuro.maps import write_maps

    model = _model(arguments)
    data = _data(model, arguments.data, arguments)
    paths = write_maps(
        model, data, arguments.out, kinds=arguments.kinds, overwrite=arguments.overwrite
    )
    count = sum(map(len, paths.values()))
    print(f"written: {count} images of {len(data)} scans in {arguments.out}")
    return 0


def _deviation(arguments: argparse.Namespace) -> int:
    from nidl_neuro.deviation import Deviation
    from nidl_neuro.outputs import check_table, write_table

    check_table(arguments.out, overwrite=arguments.overwrite)
    model = _model(arguments)
    deviation = Deviation(model, per_voxel=arguments.per_voxel)
    reference = arguments.reference
    deviation.fit(
        _data(model, arguments.controls, arguments),
        None if reference is None else _data(model, reference, arguments),
    )
    table = deviation.score(_data(model, arguments.data, arguments))
    write_table(arguments.out, table, deviation.described(), overwrite=arguments.overwrite)
    beside = arguments.out.with_suffix(".json").name
    print(f"written: {arguments.out} and {beside}, {len(table)} scans")
    return 0


def _traverse(arguments: argparse.Namespace) -> int:
    from nidl_neuro.data import prepared_affine
    from nidl_neuro.traversal import traverse, write_traversal

    model = _model(arguments)
    affine = prepared_affine(model)
    found = traverse(
        model, dimension=arguments.dimension, reach=arguments.reach, steps=arguments.steps
    )
    path = write_traversal(arguments.out, found, affine, overwrite=arguments.overwrite)
    print(f"written: {path}, {arguments.steps} volumes along z{arguments.dimension}")
    return 0


def _cache(arguments: argparse.Namespace) -> int:
    from nidl_neuro.cache import clear, default_root, sizes

    root = default_root()
    if arguments.clear:
        print(f"freed {clear(root) / 2**20:.1f} MiB in {root}")
        return 0
    held = sizes(root)
    for store in held:
        print(f"{store.nbytes / 2**20:>10.1f} MiB  {store.rows:>6} scans  {store.folder}")
    print(f"{sum(store.nbytes for store in held) / 2**20:>10.1f} MiB in all, in {root}")
    return 0


def _model(arguments: argparse.Namespace) -> Any:
    from nidl_core import load
    from nidl_core.errors import ModelFileError

    if not arguments.model.is_file():
        raise ModelFileError(f"there is no model file {arguments.model}.")
    return load(arguments.model)


def _data(model: Any, source: str, arguments: argparse.Namespace) -> Any:
    """Scans, prepared as those of the fit; what there is to note goes to stderr."""
    import sys

    from nidl_neuro.decoding import as_scans

    data = as_scans(model, source, skip_bad=getattr(arguments, "skip_bad", False))
    for note in data.notes:
        print(f"nidl: {note}", file=sys.stderr)
    return data
