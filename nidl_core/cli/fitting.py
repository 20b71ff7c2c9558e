"""`nidl fit`: a spec and data to a folder with the model, its figures and what the spec resolved to."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

from nidl_core import hooks, specs
from nidl_core.cli import arrays, completion, explain, settings, unfinished
from nidl_core.errors import NidlError, SpecError

_MODEL, _METRICS, _SPEC = "model.nidl", "metrics.csv", "spec.json"


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command of this module."""
    fit = commands.add_parser(
        "fit",
        help="train the estimator of a spec file on data",
        description=f"Writes {_MODEL}, {_METRICS} (a row an epoch) and {_SPEC} (the spec, "
        "defaults filled in) to the folder --out, at the end of the training. Until then, and if it "
        f"is cut short, they are {unfinished.MODEL} (after Ctrl-C), {unfinished.METRICS} and {unfinished.SPEC}.",
    )
    spec = fit.add_argument("spec", metavar="SPEC", type=Path, help="a .toml or .json file")
    completion.of_files(spec, "toml", "json")
    data = fit.add_argument(
        "--data",
        required=True,
        nargs="+",
        metavar="DATA",
        help="x (N, C, *S) in a .npy file, or scans, ...",
    )
    val = fit.add_argument(
        "--val", nargs="+", metavar="DATA", help="held-out data: figures and a score"
    )
    completion.of_files(data)
    completion.of_files(val)
    fit.add_argument(
        "--out", required=True, metavar="DIR", type=Path, help="folder for the results"
    )
    fit.add_argument("--overwrite", action="store_true", help="replace a model that is in DIR")
    arrays.add_skip_bad(fit)
    fit.add_argument("--json", action="store_true", help="the summary for programs")
    settings.add(fit)
    fit.set_defaults(run=_fit)


def _fit(arguments: argparse.Namespace) -> int:
    spec, out = specs.read(arguments.spec), arguments.out
    _check_folder(out, overwrite=arguments.overwrite)
    arrays.check_there([*arguments.data, *(arguments.val or ())])
    estimator, given = settings.configured(spec, arguments.settings)
    wanted = arrays.spec_for(spec.get("data"), skip_bad=arguments.skip_bad)
    data = arrays.open_data(arguments.data, wanted)
    made = getattr(data, "spec", None)
    if wanted and made is None:
        raise SpecError(
            f"{arguments.data[0]} is read as it is, by what takes no settings: the table [data] of "
            f"{arguments.spec} and --skip-bad are for scans and the like. Remove them."
        )
    val = None
    if arguments.val is not None:
        val = arrays.open_data(arguments.val, arrays.spec_for(made, skip_bad=arguments.skip_bad))
    resolved = {
        **explain.resolve(estimator, given),
        **({"data": spec["data"]} if "data" in spec else {}),
    }

    from lightning.pytorch.utilities import rank_zero_only

    from nidl_core.cli.watching import Watch

    leads = not getattr(rank_zero_only, "rank", 0)  # one process writes, whatever the strategy
    watch, start = Watch(out, explain.as_json(resolved)), time.monotonic()
    try:
        with hooks.temporary(watch):
            estimator.fit(data, val=val)
    except KeyboardInterrupt:
        if arguments.debug:
            raise
        if leads:
            _keep(estimator, out, trained=watch.began)
        return 130
    seconds = time.monotonic() - start
    if leads:
        _finish(estimator, out, watch)
    report = _Report(estimator, out, seconds)
    if leads and not arguments.json:
        report.print_fit()
    if val is not None and hasattr(estimator, "score"):
        report.score = estimator.score(val)  # may take long, or fail: the model is safe
    if leads:
        report.print_json() if arguments.json else report.print_score()
    return 0


def _check_folder(out: Path, *, overwrite: bool) -> None:
    """Raise `NidlError` unless results can be written there, before any work."""
    if out.exists() and not out.is_dir():
        raise NidlError(f"--out {out} is a file; it must be a folder, or a new name.")
    nearest = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise NidlError(f"cannot write to {out}: {nearest} is not a folder that can be written to.")
    for name in (_MODEL, unfinished.MODEL):
        if (out / name).exists() and not overwrite:
            raise NidlError(
                f"{out / name} is there already. Choose another --out, or say --overwrite."
            )


def _finish(estimator: Any, out: Path, watch: Any) -> None:
    """Write the model, and give its figures and spec their names, in the place of older ones."""
    out.mkdir(parents=True, exist_ok=True)
    estimator.save(out / _MODEL)
    watch.ensure_begun()
    (out / unfinished.SPEC).replace(out / _SPEC)
    if (out / unfinished.METRICS).exists():
        (out / unfinished.METRICS).replace(out / _METRICS)
    else:
        (out / _METRICS).unlink(missing_ok=True)


def _keep(estimator: Any, out: Path, *, trained: bool) -> None:
    """Save what an interrupted training has reached, and say what is there now."""
    if not trained:
        print("nidl: interrupted before the training", file=sys.stderr)
        return
    estimator._fitted = True  # not to the end, but its networks can be used
    estimator.save(out / unfinished.MODEL)
    kept = _there(out, unfinished.MODEL, unfinished.METRICS, unfinished.SPEC)
    epochs = len(estimator.history_)
    print(f"nidl: interrupted after {epochs} whole epochs. Kept: {kept}", file=sys.stderr)


def _there(out: Path, *names: str) -> str:
    return ", ".join(str(out / name) for name in names if (out / name).exists())


class _Report:
    """What a fit says of itself on standard output."""

    def __init__(self, estimator: Any, out: Path, seconds: float) -> None:
        last = estimator.history_[-1] if estimator.history_ else {}
        self.figures = {name: value for name, value in sorted(last.items()) if name != "epoch"}
        self.epochs = len(estimator.history_)
        self.out, self.seconds = out, seconds
        self.score: float | None = None
        shape, mask = estimator.input_shape_, getattr(estimator, "data_mask", None)
        self.values = math.prod(shape) if mask is None else shape[0] * int(mask.sum())

    def print_fit(self) -> None:
        # Strategies that spawn leave no history.
        what = f"{self.epochs} epoch{'s' * (self.epochs > 1)}" if self.epochs else "trained"
        losses = [f"{name} {v:.5g}" for name, v in self.figures.items() if name.endswith("/loss")]
        print(", ".join([f"{what} in {self.seconds:.0f} s", *losses]))
        print(f"written: {_there(self.out, _MODEL, _METRICS, _SPEC)}", flush=True)

    @property
    def bits(self) -> float | None:
        """What a value of x costs, by the bound: -ELBO / (M ln 2) of the M values that it counts."""
        return None if self.score is None else -self.score / (self.values * math.log(2))

    def print_score(self) -> None:
        if self.score is not None:
            bits = f"{self.bits:.4g} bits per value"
            print(f"score of --val: {self.score:.5g} nats (mean evidence lower bound), {bits}")

    def print_json(self) -> None:
        model, seconds = str(self.out / _MODEL), round(self.seconds, 3)
        found = {"model": model, "epochs": self.epochs, "figures": self.figures}
        scores = {"score": self.score, "bits_per_value": self.bits}
        print(json.dumps({**found, **scores, "seconds": seconds}))
