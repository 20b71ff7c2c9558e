"""What the import of a module changes for others. Run in a fresh process: `... probe MODULE MARK BASE`.

BASE is what is imported before, so that its own doings are not the module's: "torch", or "lightning"
for all that an estimator needs and more. A module that brings any of that along has to be looked at
again with the larger base, and the smaller one answers so. Prints one line of JSON after the mark;
whatever else stands on standard output the module printed.
"""

from __future__ import annotations

import importlib
import io
import json
import logging
import multiprocessing
import os
import random
import signal
import sys
import threading
import warnings
from typing import Any, NoReturn

_IGNORE = ("ignore", None, Warning, None, 0)
_LARGER = ("lightning", "sklearn", "torch._dynamo")  # Dynamo wraps some functions of torch's


def main(module: str, mark: str, base: str) -> None:
    """Import the module with warnings as errors, and print what it changed and printed."""
    warnings.resetwarnings()
    warnings.simplefilter("ignore")
    owners = _owners(base)
    warnings.filters.remove(_IGNORE)  # type: ignore[attr-defined]
    warnings.simplefilter("error", append=True)

    terminal, sys.stdout = sys.stdout, io.StringIO()
    captured = sys.stdout
    before, attributes, filters = _state(), _attributes(owners), list(warnings.filters)
    try:
        importlib.import_module(module)
        after, attributes_after = _state(), _attributes(owners)
    finally:
        sys.stdout = terminal
        if base == "torch" and any(name in sys.modules for name in _LARGER):
            _answer(mark, again=True)

    names = dict.fromkeys([*before, *after])
    changed = [name for name in names if before.get(name) != after.get(name)]
    changed += [
        f"the attribute {name}"
        for name, value in attributes.items()
        if attributes_after.get(name) is not value
    ]
    if _hurt(filters):
        changed.append("the warning filters")
    _answer(mark, changed=changed, printed=captured.getvalue())


def _answer(mark: str, **facts: Any) -> NoReturn:
    print(f"\n{mark}{json.dumps(facts)}", flush=True)
    os._exit(0)  # a thread that the module started might never end


def _owners(base: str) -> list[Any]:
    """Modules and classes that everybody uses, and nobody may patch."""
    import numpy
    import torch.utils.data

    from nidl_core import interfaces

    owners = [
        *(numpy, torch, torch.Tensor, torch.nn, torch.nn.functional, torch.nn.Module),
        *(torch.distributions, torch.optim, torch.utils.data, interfaces, interfaces.Likelihood),
    ]
    if base == "torch":
        return owners
    import torch._dynamo
    from lightning.pytorch import LightningModule, Trainer

    from nidl_core import estimator

    return [*owners, LightningModule, Trainer, estimator, estimator.Estimator]


def _state() -> dict[str, Any]:
    import numpy
    import torch

    from nidl_core.testing.settings import settings

    return {
        **settings(),
        "torch's default device": str(torch.get_default_device()),
        "torch's random state": torch.random.get_rng_state().tolist(),
        "numpy's random state": numpy.random.get_state()[1].tolist(),  # type: ignore[index]
        "Python's random state": random.getstate(),
        "the working directory": os.getcwd(),
        "the import path": list(sys.path),
        **{f"the environment variable {name}": value for name, value in os.environ.items()},
        "what SIGINT does": signal.getsignal(signal.SIGINT),
        "standard output": sys.stdout,
        "the hook for uncaught errors": sys.excepthook,
        "the root logger": (logging.root.level, list(logging.root.handlers)),
        "how processes start": multiprocessing.get_start_method(allow_none=True),
        "running threads": sorted(thread.name for thread in threading.enumerate()),
    }


def _attributes(owners: list[Any]) -> dict[str, Any]:
    return {
        f"{owner.__name__}.{name}": value
        for owner in owners
        for name, value in list(vars(owner).items())
        if callable(value)
    }


def _hurt(filters: list[Any]) -> bool:
    """Whether filters were taken away, or one was added for warnings that are everybody's."""
    added = len(warnings.filters) - len(filters)
    news = warnings.filters[:added]
    blanket = [
        category
        for _, message, category, module, _ in news
        if not message and not module and category.__module__ == "builtins"
    ]
    return list(warnings.filters[added:]) != filters or bool(blanket)


if __name__ == "__main__":
    main(*sys.argv[1:])
