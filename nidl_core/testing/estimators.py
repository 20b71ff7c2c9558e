"""Checks of estimators: scikit-learn's own, and what nidl promises besides."""

from __future__ import annotations

import functools
import inspect
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nidl_core.registry import SESSION
from nidl_core.seeding import preserved, seed_all
from nidl_core.testing.backends import Backend, compiler, current, without_dynamos_warnings
from nidl_core.testing.cases import Case, missing
from nidl_core.testing.catalogue import EAGER, EVERYWHERE, Check, NotApplicable, check
from nidl_core.testing.modules import (
    assert_same_state,
    random_states,
    require_importable,
    sendable,
)
from nidl_core.testing.processes import pair, spawned
from nidl_core.testing.subjects import assert_close

KIND = "estimators"
N = 12
_INIT = "check_no_attributes_set_in_init"
_SET = "check_do_not_raise_errors_in_init_or_set_params"


def known_failures(case: Case) -> dict[str, str]:
    """The checks of scikit-learn that nidl's estimators fail by design, and why."""
    known = {_INIT: "Lightning sets attributes of its own in __init__"}
    if _takes_keywords(case):
        known[_SET] = (
            "it passes a parameter literally called trainer_kwargs, and unknown keywords are refused"
        )
    elif case.cls.components:
        known[_SET] = "it passes components that are none, and these are refused"
    return known


def sklearn_checks(case: Case) -> list[Check]:
    """scikit-learn's checks of this estimator, each under its own name; none if a need is missing."""
    from sklearn.utils.estimator_checks import estimator_checks_generator

    if missing(case):
        return []
    found: dict[str, Check] = {}
    with _scikit_learns_warnings():
        for _, function in estimator_checks_generator(_repeatable(case), legacy=True):
            given = dict(function.keywords) if isinstance(function, functools.partial) else {}
            inner: Any = function.func if isinstance(function, functools.partial) else function
            name = "_".join([inner.__name__, *(str(value) for value in given.values())])
            found[name] = Check(name, _sklearn_check(function), (KIND,), EAGER)
    return list(found.values())


def _sklearn_check(function: Callable[[Any], None]) -> Callable[[Case], None]:
    def run(case: Case) -> None:
        with _scikit_learns_warnings():
            function(_repeatable(case))

    run.__doc__ = f"scikit-learn's: {getattr(function, 'func', function).__doc__ or ''}"
    return run


def _repeatable(case: Case) -> Any:
    """The estimator with a seed: without one it is not deterministic, and scikit-learn leaves out checks."""
    model = case.build(case.shapes[0])
    unseeded = model.get_params(deep=False).get("random_state", 0) is None
    return model.set_params(random_state=0) if unseeded else model


class _scikit_learns_warnings(warnings.catch_warnings):  # noqa: N801 (a context, like its base)
    """Leave out what the checks warn of whatever the estimator does."""

    def __enter__(self) -> Any:
        log = super().__enter__()
        from sklearn.exceptions import SkipTestWarning

        warnings.simplefilter("ignore", SkipTestWarning)
        warnings.filterwarnings("ignore", message=".*recommended to delay parameter validation")
        return log


@check(KIND, backends=EVERYWHERE)
def check_fits(case: Case) -> None:
    """A fit on the backend ends with finite figures and weights; compiled, with those of eager."""
    from nidl_core.testing.fits import trainer_arguments

    x, backend = data(case), current()
    if backend == Backend():
        found = _fitted(case, x)
    elif not _takes_keywords(case):
        raise NotApplicable(f"it takes no arguments for Lightning's Trainer, and {backend} is some")
    else:
        with without_dynamos_warnings():
            found = _fitted(case, x, **trainer_arguments(backend))
    for epoch in found.history_:
        for name, figure in epoch.items():
            assert np.isfinite(figure), f"{name} is {figure} in {epoch}"
    for name, value in found.state_dict().items():
        assert bool(value.isfinite().all()), f"{name} has values that are not finite"
    if compiler(backend.name):
        expected = _fitted(case, x, accelerator=backend.device).state_dict()
        for name, value in found.state_dict().items():
            assert_close(value, expected[name], 1e-3, f"{name} after a compiled fit")


@check(KIND)
def check_repeatable(case: Case) -> None:
    """One seed, one model: weights and answers agree bit for bit."""
    x = data(case)
    one, again = _fitted(case, x), _fitted(case, x)
    assert_same_state(one.state_dict(), again.state_dict(), "fitted twice with one seed")
    if hasattr(one, "transform"):
        assert np.array_equal(one.transform(x), again.transform(x)), "transform does not repeat"


@check(KIND)
def check_random_state_counts(case: Case) -> None:
    """Another seed gives other weights."""
    x = data(case)
    one, other = (_fitted(case, x, random_state=seed).state_dict() for seed in (0, 1))
    assert any(not torch.equal(one[name], other[name]) for name in one), (
        "random_state changes nothing: the weights follow another seed, or none"
    )


@check(KIND)
def check_refit(case: Case) -> None:
    """A second fit begins anew, whatever was fitted before."""
    x = data(case)
    expected = _fitted(case, x)
    found = _fitted(case, x[: N // 2]).fit(x)
    assert_same_state(expected.state_dict(), found.state_dict(), "fitted again")


@check(KIND)
def check_random_state_is_left_alone(case: Case) -> None:
    """fit, transform and score leave the caller's random state, and the data, as they were."""
    x = data(case)
    kept, before = x.copy(), random_states()
    model = _fitted(case, x)
    if hasattr(model, "transform"):
        model.transform(x)
    if hasattr(model, "score"):
        model.score(x)
    moved = [name for name, state in random_states().items() if state != before[name]]
    assert not moved, f"the random state of {', '.join(moved)} is another afterwards"
    assert np.array_equal(x, kept), "the data were changed in place"


@check(KIND)
def check_transform_is_by_row(case: Case) -> None:
    """Each row is transformed once, in order, whatever the batches."""
    x = data(case)
    model = _fitted(case, x)
    if not hasattr(model, "transform"):
        raise NotApplicable("it has no transform")
    whole = model.transform(x)
    assert len(whole) == len(x), f"{len(x)} rows in, {len(whole)} out"
    others = {"in reverse order": model.transform(x[::-1].copy())[::-1].copy()}
    if "batch_size" in model.get_params(deep=False):
        others["in batches of 5"] = model.set_params(batch_size=5).transform(x)
    for how, found in others.items():
        assert_close(torch.as_tensor(found), torch.as_tensor(whole), 1e-4, f"transformed {how}")


@check(KIND)
def check_saved_model(case: Case) -> None:
    """Saved, and loaded in a spawned process, it is the same model."""
    require_importable(case)
    if case.entry is None or case.entry.distribution == SESSION:
        raise NotApplicable("a model file names its estimator: the class must be installed by name")
    x = data(case)
    model = _fitted(case, x)
    with tempfile.TemporaryDirectory(prefix="nidl-") as folder:
        path = Path(folder, "model.nidl")
        model.save(path)
        params, state, latents = spawned(_loaded, str(path), x)
    assert_same_state(model.state_dict(), state, "loaded")
    for name, value in case.params.items():
        if name in model.components:
            continue  # names come back in full
        assert params[name] == value, f"{name} was {value!r}, and is loaded as {params[name]!r}"
    if latents is not None:
        assert np.array_equal(latents, model.transform(x)), "the loaded model transforms otherwise"


def _loaded(path: str, x: Any) -> tuple[Any, Any, Any]:
    from nidl_core.saving import load

    torch.manual_seed(3)
    model = load(path)
    latents = model.transform(x) if hasattr(model, "transform") else None
    return model.get_params(deep=False), dict(model.state_dict()), latents


@check(KIND, backends=EAGER | {"ddp"})
def check_ddp_step(case: Case) -> None:
    """Two processes take training steps by DistributedDataParallel, without unused parameters."""
    require_importable(case)
    if not case.build(case.shapes[0]).automatic_optimization:
        raise NotApplicable("it optimises by itself: training_step gives no loss to go down")
    one, other = pair(_three_steps, sendable(case))
    assert_same_state(one, other, "in the two processes")


class _Step(nn.Module):
    """training_step as the forward that DistributedDataParallel wants."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        figures = self.model.training_step(x, 0)
        loss: Tensor = figures["loss"] if isinstance(figures, dict) else figures
        return loss


def _three_steps(rank: int, case: Case) -> dict[str, Tensor]:
    x = torch.as_tensor(data(case))
    model = case.build(case.shapes[0])
    with preserved():
        seed_all(0)
        model.assemble_seeded(x[:1])
    wrapped = nn.parallel.DistributedDataParallel(_Step(model))
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-4)
    for step in range(3):  # as for modules
        optimiser.zero_grad()
        wrapped(x[rank + step :: 2]).backward()
        optimiser.step()
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def _takes_keywords(case: Case) -> bool:
    parameters = inspect.signature(case.cls).parameters.values()
    return any(p.kind is p.VAR_KEYWORD for p in parameters)


def data(case: Case, n: int = N) -> Any:
    """x (n, C, *S) of the case's first shape, float32, in [0, 1]: inside every usual support."""
    return np.random.default_rng(0).random((n, *case.shapes[0]), dtype=np.float32)


def _fitted(case: Case, x: Any, **params: Any) -> Any:
    model = case.build(case.shapes[0])
    assert "random_state" in model.get_params(deep=False), (
        "it takes no random_state, so that no fit can be repeated: let its __init__ take **kwargs "
        "and hand them on to super().__init__"
    )
    return model.set_params(**{"random_state": 0, **params}).fit(x)
