"""The commands of this plugin: maps, deviation, traverse, report, cache. Nothing heavy is imported before one runs."""

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
    controls = deviation.add_mutually_exclusive_group(required=True)
    controls.add_argument(
        "--controls", nargs="+", metavar="DATA", help="scans that the model was not fitted on"
    )
    controls.add_argument(
        "--calibration", type=Path, metavar="FILE.npz", help="what --save wrote for this model"
    )
    deviation.add_argument(
        "--reference", nargs="+", metavar="DATA", help="others, such as those of the fit"
    )
    deviation.add_argument(
        "--save", type=Path, metavar="FILE.npz", help="keep the calibration for other scans"
    )
    deviation.add_argument("--per-voxel", action="store_true", help="z-maps relative to controls")
    deviation.add_argument("--out", required=True, type=Path, metavar="SCORES.tsv")
    deviation.add_argument("--overwrite", action="store_true", help="replace a table that is there")
    deviation.set_defaults(run=_deviation)

    traverse = _command(
        commands, "traverse", "volumes along a latent dimension or a covariate, as one 4-D image"
    )
    _scans(traverse, required=False)
    along = traverse.add_mutually_exclusive_group()
    along.add_argument("--dimension", type=int, default=0, help="of the latents (0)")
    along.add_argument("--along", metavar="COVARIATE", help="of the scans' table, instead")
    traverse.add_argument("--reach", type=float, default=3.0, help="standard deviations (3)")
    traverse.add_argument("--steps", type=int, default=7, help="an odd number (7)")
    traverse.add_argument("--out", required=True, type=Path, metavar="OUT.nii.gz")
    traverse.add_argument("--png", type=Path, metavar="OUT.png", help="draw it, too")
    traverse.add_argument("--overwrite", action="store_true", help="replace files that are there")
    traverse.set_defaults(run=_traverse)

    report = _command(commands, "report", "one page about a model and its scans, as .html")
    _scans(report)
    report.add_argument("--val", nargs="+", metavar="DATA", help="held-out scans")
    report.add_argument("--out", required=True, type=Path, metavar="OUT.html")
    report.add_argument("--title", help="at the head of the page")
    report.add_argument("--seed", type=int, default=0, help="of what is drawn at random (0)")
    report.add_argument("--overwrite", action="store_true", help="replace a page that is there")
    report.set_defaults(run=_report)

    cache = commands.add_parser(
        "cache",
        help="prepared scans on this disk: how much, and remove them",
        description="Prepared scans of all projects lie in the folder that NIDL_CACHE names, or in the "
        "user's cache folder. What is removed is prepared again when it is needed.",
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


def _scans(command: argparse.ArgumentParser, *, required: bool = True) -> None:
    command.add_argument(
        "--data",
        required=required,
        nargs="+",
        metavar="DATA",
        help="scans: files, a folder, a glob, a table",
    )
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
    from nidl_core.errors import NidlError
    from nidl_neuro.deviation import Deviation
    from nidl_neuro.outputs import check_table, write_table
    from nidl_neuro.replacing import check_free

    check_table(arguments.out, overwrite=arguments.overwrite)
    if arguments.save is not None:
        check_free([arguments.save], overwrite=arguments.overwrite)
    model = _model(arguments)
    if arguments.calibration is None:
        deviation = Deviation(model, per_voxel=arguments.per_voxel).fit(
            _data(model, arguments.controls, arguments),
            _data(model, arguments.reference, arguments),
        )
    elif arguments.per_voxel or arguments.reference:
        raise NidlError(
            "--per-voxel and --reference belong to a calibration by --controls; --calibration has its own."
        )
    else:
        deviation = Deviation.load(arguments.calibration, model)
    count = len(deviation.calibration_)
    print(f"calibrated on {count} controls: no p-value is below {1 / (count + 1):.3g}")
    if arguments.save is not None:
        deviation.save(arguments.save, overwrite=arguments.overwrite)
    table = deviation.score(_data(model, arguments.data, arguments))
    write_table(arguments.out, table, deviation.described(), overwrite=arguments.overwrite)
    beside = arguments.out.with_suffix(".json").name
    print(f"written: {arguments.out} and {beside}, {len(table)} scans")
    return 0


def _traverse(arguments: argparse.Namespace) -> int:
    from nidl_core.errors import NidlError
    from nidl_neuro.conditional import along
    from nidl_neuro.data import prepared_affine
    from nidl_neuro.decoding import counted, posterior
    from nidl_neuro.replacing import check_free
    from nidl_neuro.traversal import background, traverse, write_traversal

    if arguments.along and not arguments.data:
        raise NidlError(
            "--along is a covariate of scans: say --data with a table or a folder of them."
        )
    check_free(filter(None, (arguments.out, arguments.png)), overwrite=arguments.overwrite)
    model = _model(arguments)
    affine = prepared_affine(model)
    data = _data(model, arguments.data, arguments)
    if arguments.along:
        given, found = along(model, data, arguments.along, steps=arguments.steps)
        shares = ", ".join(f"z{i} {share:.0%}" for i, share in enumerate(given.r2_))
        print(f"{arguments.along} explains, of each latent's variance: {shares}")
    else:
        found = traverse(
            model,
            None if data is None else posterior(model, data)[0],
            dimension=arguments.dimension,
            reach=arguments.reach,
            steps=arguments.steps,
            outside=0.0 if data is None else background(data),
        )
    if arguments.png is not None:
        from nidl_neuro.pictures import picture, write_picture

        figure = picture(found, affine, mask=counted(model))
        write_picture(arguments.png, figure, overwrite=arguments.overwrite)
    path = write_traversal(arguments.out, found, affine, overwrite=arguments.overwrite)
    drawn = f" and {arguments.png}" if arguments.png else ""
    print(f"written: {path}{drawn}, {len(found.steps)} volumes along {found.name}")
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from nidl_neuro.replacing import check_free
    from nidl_neuro.report import write_report

    check_free([arguments.out], overwrite=arguments.overwrite)
    model = _model(arguments)
    path = write_report(
        model,
        _data(model, arguments.data, arguments),
        arguments.out,
        val=_data(model, arguments.val, arguments),
        title=arguments.title,
        seed=arguments.seed,
    )
    print(f"written: {path}")
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


def _data(model: Any, source: list[str] | None, arguments: argparse.Namespace) -> Any:
    """Scans, prepared as those of the fit; what there is to note goes to stderr."""
    import sys

    from nidl_neuro.decoding import as_scans

    if source is None:
        return None
    data = as_scans(model, source if source[1:] else source[0], skip_bad=arguments.skip_bad)
    for note in data.notes:
        print(f"nidl: {note}", file=sys.stderr)
    return data
