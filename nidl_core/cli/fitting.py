"""`nidl fit`: a spec and data to a folder with the model, its figures and what the spec resolved to."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from nidl_core import hooks, specs
from nidl_core.cli import arrays, completion, explain, settings
from nidl_core.errors import NidlError

_MODEL, _INTERRUPTED = "model.nidl", "interrupted.nidl"
_METRICS, _SPEC = "metrics.csv", "spec.json"


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command of this module."""
    fit = commands.add_parser(
        "fit",
        help="train the estimator of a spec file on data",
        description=f"Writes {_MODEL}, {_METRICS} (a row an epoch) and {_SPEC} (the spec, "
        "defaults filled in) to the folder --out.",
    )
    spec = fit.add_argument("spec", metavar="SPEC", type=Path, help="a .toml or .json file")
    completion.of_files(spec, "toml", "json")
    data = fit.add_argument(
        "--data", required=True, metavar="X.npy", help="x (N, C, *S) to train on"
    )
    val = fit.add_argument("--val", metavar="V.npy", help="held-out data: figures and a score")
    completion.of_files(data)
    completion.of_files(val)
    fit.add_argument(
        "--out", required=True, metavar="DIR", type=Path, help="folder for the results"
    )
    fit.add_argument("--overwrite", action="store_true", help="replace a model that is in DIR")
    fit.add_argument("--json", action="store_true", help="the summary for programs")
    settings.add(fit)
    fit.set_defaults(run=_fit)


def _fit(arguments: argparse.Namespace) -> int:
    spec, out = specs.read(arguments.spec), arguments.out
    _check_folder(out, overwrite=arguments.overwrite)
    data = arrays.open_data(arguments.data)
    val = None if arguments.val is None else arrays.open_data(arguments.val)
    estimator, given = settings.configured(spec, arguments.settings)
    estimator.check_values()
    resolved = explain.resolve(estimator, given)

    from lightning.pytorch.utilities import rank_zero_only

    from nidl_core.cli.watching import Watch

    out.mkdir(parents=True, exist_ok=True)
    leads = not getattr(rank_zero_only, "rank", 0)  # one process writes, whatever the strategy
    if leads:
        (out / _METRICS).unlink(missing_ok=True)
        with arrays.replacing(out / _SPEC) as file:
            file.write(explain.as_json(resolved).encode())
    watch, start = Watch(out), time.monotonic()
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
    score = estimator.score(val) if val is not None and hasattr(estimator, "score") else None
    if leads:
        estimator.save(out / _MODEL)
        (out / _INTERRUPTED).unlink(missing_ok=True)
        _report(estimator, out, score, seconds, as_json=arguments.json)
    return 0


def _check_folder(out: Path, *, overwrite: bool) -> None:
    """Raise `NidlError` unless results can be written there, before any work."""
    if out.exists() and not out.is_dir():
        raise NidlError(f"--out {out} is a file; it must be a folder, or a new name.")
    nearest = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise NidlError(f"cannot write to {out}: {nearest} is not a folder that can be written to.")
    for name in (_MODEL, _INTERRUPTED):
        if (out / name).exists() and not overwrite:
            raise NidlError(
                f"{out / name} is there already. Choose another --out, or say --overwrite."
            )


def _keep(estimator: Any, out: Path, *, trained: bool) -> None:
    """Save what an interrupted training has reached, and say what is there now."""
    if trained:
        estimator._fitted = True  # not to the end, but its networks can be used
        estimator.save(out / _INTERRUPTED)
    epochs = len(estimator.history_) if trained else 0
    kept = _there(out, *([_INTERRUPTED] if trained else []), _METRICS, _SPEC)
    print(f"nidl: interrupted after {epochs} whole epochs. Kept: {kept}", file=sys.stderr)


def _there(out: Path, *names: str) -> str:
    return ", ".join(str(out / name) for name in names if (out / name).exists())


def _report(
    estimator: Any, out: Path, score: float | None, seconds: float, *, as_json: bool
) -> None:
    last = estimator.history_[-1] if estimator.history_ else {}
    figures = {name: value for name, value in sorted(last.items()) if name != "epoch"}
    epochs = len(estimator.history_)
    if as_json:
        found = {"model": str(out / _MODEL), "epochs": epochs, "figures": figures, "score": score}
        print(json.dumps({**found, "seconds": round(seconds, 3)}))
        return
    losses = [f"{name} {value:.5g}" for name, value in figures.items() if name.endswith("/loss")]
    # Strategies that spawn leave no history.
    what = f"{epochs} epoch{'s' * (epochs > 1)}" if epochs else "trained"
    print(", ".join([f"{what} in {seconds:.0f} s", *losses]))
    if score is not None:
        print(f"score of --val: {score:.5g} nats (mean evidence lower bound)")
    print(f"written: {_there(out, _MODEL, _METRICS, _SPEC)}")
