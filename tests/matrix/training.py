"""Every installed component, trained for a few steps in every estimator that takes one of its kind.

The list comes from entry points: a new plugin is in it once it is installed. As a script it trains
under DistributedDataParallel: `python training.py FOLDER` leaves RANK.json in FOLDER.
"""

from __future__ import annotations

import copy
import json
import math
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nidl_core.registry import REGISTRIES, registry
from nidl_core.seeding import preserved, seed_all
from nidl_core.testing import Case, installed
from nidl_core.testing.cases import missing
from nidl_core.testing.subjects import values_of

ROWS = 6


def pairs() -> list[tuple[Case, Case]]:
    """(estimator, component), for each component of a kind that the estimator takes."""
    cases = [c for kind in REGISTRIES if registry(kind).names() for c in installed(kind=kind)]
    estimators = [c for c in cases if c.kind == "estimators"]
    return [
        (estimator, case)
        for estimator in estimators
        for case in cases
        if case.kind in estimator.cls.components.values() and not missing(estimator)
    ]


def name(pair: tuple[Case, Case]) -> str:
    """For pytest -k."""
    return f"{pair[0].name}-{pair[1].id}"


def train(estimator: Case, case: Case, **trainer: Any) -> dict[str, Any]:
    """Fit the estimator with the component in its place; what came out, as plain data."""
    place = next(p for p, kind in estimator.cls.components.items() if kind == case.kind)
    params = copy.deepcopy(dict(estimator.params))
    params[place] = {"name": case.name, "params": dict(case.params)}
    params |= {"random_state": 0, "batch_size": 2, "max_epochs": 1, **trainer}
    assert case.accepted, f"{case.id} refuses all of {list(case.shapes)}"
    shape = min(case.accepted, key=math.prod)
    x = data(case, shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Bernoulli has a word on soft targets
        model = estimator.cls(**params).fit(x, val=x)
        score = model.score(x)
    figures = model.history_[-1]
    return {
        "train loss": figures["train/loss"],
        "val loss": figures["val/loss"],
        "score": score,
        "latents": list(np.shape(model.transform(x))),
        "reconstructions": list(np.shape(model.reconstruct(x))),
        "shape": list(shape),
        "weights": sum(p.detach().double().abs().sum().item() for p in model.parameters()),
    }


def data(case: Case, shape: tuple[int, ...]) -> Any:
    """x (ROWS, C, *S) in the support of the likelihood under test, else in [0, 1]."""
    support = (
        getattr(case.build(shape), "support", "unit") if case.kind == "likelihoods" else "unit"
    )
    with preserved():
        seed_all(0)
        return values_of(support, (ROWS, *shape), torch.float32).numpy()


def main(folder: str) -> None:
    """Train all of them in two processes; Lightning starts the second."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for pair in pairs():
        try:
            found[name(pair)] = train(*pair, strategy="ddp", accelerator="cpu", devices=2)
        except Exception:  # the others are to be heard all the same
            found[name(pair)] = {"failed": traceback.format_exc()}
    rank = os.environ.get("LOCAL_RANK", "0")
    Path(folder, f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    # Together, and before the interpreter ends: a rank that leaves first may take gloo's threads away.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
