"""`nidl transform`, `reconstruct` and `sample`: a saved model and data to a `.npy` file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nidl_core import hooks
from nidl_core.cli import arrays, completion, settings
from nidl_core.cli.progress import Progress
from nidl_core.errors import ModelFileError, NidlError


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the commands of this module."""
    for verb, help in (
        ("transform", "latents of data, by a saved model"),
        ("reconstruct", "data as a saved model gives them back"),
    ):
        command = _command(commands, verb, help)
        data = command.add_argument(
            "--data",
            required=True,
            nargs="+",
            metavar="DATA",
            help="x (N, C, *S) in a .npy file, or scans, ...",
        )
        completion.of_files(data)
        arrays.add_skip_bad(command)
        command.set_defaults(run=_apply, verb=verb)

    sample = _command(commands, "sample", "new data from a saved model")
    sample.add_argument("-n", type=_count, required=True, metavar="N", help="how many")
    sample.add_argument("--seed", type=_seed, help="an int that makes the samples repeatable")
    sample.add_argument("--draw", action="store_true", help="draws from p(x | z), not its means")
    sample.set_defaults(run=_sample, verb="sample")


def _command(
    commands: argparse._SubParsersAction[Any], name: str, help: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=help)
    model = command.add_argument("model", metavar="MODEL", type=Path, help="a .nidl file")
    completion.of_files(model, "nidl")
    out = command.add_argument(
        "--out",
        required=True,
        metavar="OUT",
        type=Path,
        help="a .npy file, or what a plugin writes",
    )
    completion.of_files(out, "npy")
    command.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    settings.add(command)
    return command


def _apply(arguments: argparse.Namespace) -> int:
    writer = _check_paths(arguments)
    arrays.check_there(arguments.data)
    model = _loaded(arguments)
    spec = arrays.spec_for(getattr(model, "data_spec_", None), skip_bad=arguments.skip_bad)
    data = arrays.open_data(arguments.data, spec)
    rows, pieces = arrays.in_pieces(data, model.input_shape_, model.batch_size)
    answers = (getattr(model, arguments.verb)(piece) for piece in pieces)
    return _write(arguments, writer, model, data, rows, answers)


def _sample(arguments: argparse.Namespace) -> int:
    writer = _check_paths(arguments)
    model = _loaded(arguments)

    from nidl_core.inference import device_for
    from nidl_core.seeding import draw_seed, mix

    model.to(device_for(model._given))
    seed = arguments.seed
    if seed is None:
        seed = draw_seed(None)
        print(f"nidl: drawn with --seed {seed}", file=sys.stderr)
    more = {"draw": True} if arguments.draw else {}
    size = arrays.piece_of(model.input_shape_, model.batch_size)

    def pieces() -> Iterator[Any]:
        for index, start in enumerate(range(0, arguments.n, size)):
            own = mix(seed, index) if index else seed  # up to one piece: as in Python
            yield model.sample(min(size, arguments.n - start), seed=own, **more)

    return _write(arguments, writer, model, None, arguments.n, pieces())


def _check_paths(arguments: argparse.Namespace) -> Any:
    """What can be told before torch is imported; who writes, if it is a plugin."""
    writer = None
    if arguments.out.suffix != ".npy":
        writer = hooks.first("nidl_writer", out=arguments.out, verb=arguments.verb)
    if writer is None:
        arrays.check_target(arguments.out, overwrite=arguments.overwrite)
    else:
        writer.check(overwrite=arguments.overwrite)
    if not arguments.model.is_file():
        inside = arguments.model / "model.nidl"
        hint = f" Say {inside}." if inside.is_file() else ""
        raise ModelFileError(f"there is no model file {arguments.model}.{hint}")
    return writer


def _loaded(arguments: argparse.Namespace) -> Any:
    import nidl_core

    model = nidl_core.load(arguments.model)
    settings.reconfigure(model, arguments.settings)
    if not hasattr(model, arguments.verb):
        raise NidlError(
            f"{arguments.model} is a {type(model).__name__}, which has no {arguments.verb}."
        )
    if model.random_state is None:  # one seed for all pieces, as for one array
        from nidl_core.seeding import draw_seed

        model.set_params(random_state=draw_seed(None))
    return model


def _write(
    arguments: argparse.Namespace,
    writer: Any,
    model: Any,
    data: Any,
    rows: int | None,
    answers: Iterable[Any],
) -> int:
    import numpy as np

    progress = Progress(f"{arguments.verb}: row", rows)

    def told() -> Iterator[Any]:
        done = 0
        for answer in answers:
            array = np.asarray(answer.cpu() if hasattr(answer, "cpu") else answer)
            done += len(array)
            progress.step(done)
            yield array

    if writer is None:
        written = f"{arguments.out} {arrays.write_rows(arguments.out, rows, told())}"
    else:
        written = writer.write(model, data, rows, told())
    print(f"written: {written}")
    return 0


def _count(text: str) -> int:
    return _int(text, least=1)


def _seed(text: str) -> int:
    return _int(text, least=0)


def _int(text: str, *, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not an int from {least} on")
    return int(text)
