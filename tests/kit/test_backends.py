"""Backends: from the environment, what they run, and which checks they select."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from bad_networks import LooksAtValues, OtherwiseCompiled
from good_components import SMALL, Elbo, Gauss, LinearEncoder
from good_estimator import AutoEncoder

from nidl_core.errors import SpecError
from nidl_core.testing import Case, checks_for
from nidl_core.testing.backends import Backend, current
from nidl_core.testing.catalogue import all_checks
from nidl_core.testing.running import run_check
from nidl_core.testing.subjects import shapes_of

CASE = Case("encoders", LinearEncoder, shapes=SMALL)
SLICES = {"check_gradients", "check_inputs_unchanged", "check_seeded", "check_ddp", "check_shapes"}
SLICES |= {"check_batch_of_one", "check_samples_do_not_see_each_other"}


@pytest.mark.parametrize("name", ["eager", "compile", "inductor", "bf16", "ddp"])
def test_the_backend_comes_from_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert current() == Backend("eager", "cpu")
    monkeypatch.setenv("NIDL_TEST_BACKEND", name)
    assert current() == Backend(name, "cpu")


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        (
            "BACKEND",
            "complie",
            "must be one of eager, compile, inductor, bf16, ddp, got 'complie'.",
        ),
        ("DEVICE", "gpu", "NIDL_TEST_DEVICE must be one of cpu, cuda, got 'gpu'."),
    ],
)
def test_an_unknown_backend_or_device_is_refused(
    variable: str, value: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"NIDL_TEST_{variable}", value)
    with pytest.raises(SpecError) as caught:
        checks_for(CASE)
    assert text in str(caught.value)


def test_cuda_where_there_is_none_is_an_error_and_no_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIDL_TEST_DEVICE", "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SpecError, match="NIDL_TEST_DEVICE=cuda, and torch finds no CUDA device"):
        checks_for(CASE)


@pytest.mark.parametrize("backend", ["compile", "inductor", "bf16"])
def test_a_backend_runs_the_checks_that_run_modules(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIDL_TEST_BACKEND", backend)
    assert {check.name for check in checks_for(CASE)} == SLICES
    likelihoods = {check.name for check in checks_for(Case("likelihoods", Gauss))}
    assert likelihoods == SLICES - {"check_shapes", "check_batch_of_one"}
    estimators = checks_for(Case("estimators", AutoEncoder))
    assert [check.name for check in estimators] == ["check_fits"]


def test_ddp_runs_what_trains_in_two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIDL_TEST_BACKEND", "ddp")
    assert [check.name for check in checks_for(CASE)] == ["check_ddp"]
    assert [check.name for check in checks_for(Case("losses", Elbo))] == ["check_ddp"]
    estimators = checks_for(Case("estimators", AutoEncoder))
    assert [check.name for check in estimators] == ["check_ddp_step"]


def test_compile_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def run(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        seen.append(torch.compiler.is_compiling())
        return module(x)

    module = OtherwiseCompiled((7,))
    x = torch.ones(2, 7)
    eager = Backend("eager").run(run)(module, x)
    assert torch.equal(Backend("compile").run(run)(module, x), 2 * eager)
    assert seen[0] is False


def test_what_is_compiled_is_compiled_for_one_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shapes_of(CASE) == SMALL
    monkeypatch.setenv("NIDL_TEST_BACKEND", "compile")
    assert shapes_of(CASE) == [(7,)]


def test_bf16_runs_under_autocast() -> None:
    run = Backend("bf16").run(lambda module, x: module(x))
    assert run(LinearEncoder((7,)), torch.ones(2, 7)).dtype == torch.bfloat16


def test_the_smallest_maps_have_gradients_in_bf16_whatever_the_memory_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NIDL_TEST_BACKEND", "bf16")
    convolution = torch.nn.Conv3d(16, 16, 3, padding=1)
    with current().scope():
        for _ in range(5):
            x = torch.randn(4, 16, 2, 2, 2)
            y = current().run(lambda module, x: module(x))(convolution, x)
            spoilt = [torch.full((n,), torch.nan) for n in (1000, 6912, 13824, 100_000) * 20]
            del spoilt
            y.float().square().sum().backward()
            assert bool(convolution.weight.grad.isfinite().all())  # type: ignore[union-attr]
    assert torch._C._get_mkldnn_enabled()


def test_a_graph_that_breaks_is_no_fault() -> None:
    case = Case("encoders", LooksAtValues, shapes=[(7,)])
    found = run_check(case, all_checks()["check_compile"])
    assert found.outcome == "passed", found.text


class Precise(AutoEncoder):
    """Its networks see how they are run."""

    seen: ClassVar[list[Any]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        compiled = [part._compiled_call_impl is not None for part in (self.down, self.up)]
        self.seen.append((self.down(self.as_input(batch).flatten(1)).dtype, compiled))
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(
    ("backend", "dtype", "compiled"),
    [
        ("eager", torch.float32, False),
        ("compile", torch.float32, True),
        ("bf16", torch.bfloat16, False),
    ],
)
def test_an_estimator_is_fitted_on_the_backend(
    backend: str, dtype: torch.dtype, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIDL_TEST_BACKEND", backend)
    Precise.seen.clear()
    found = run_check(Case("estimators", Precise, shapes=[(6,)]), all_checks()["check_fits"])
    assert found.outcome == "passed", found.text
    assert Precise.seen[0] == (dtype, [compiled, compiled])


class WithoutKeywords(AutoEncoder):
    """It takes no arguments for the Trainer."""

    def __init__(self, latent_dim: int = 2, random_state: int | None = None) -> None:
        super().__init__(latent_dim=latent_dim, random_state=random_state)


def test_an_estimator_that_hands_nothing_to_the_trainer_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NIDL_TEST_BACKEND", "bf16")
    found = run_check(Case("estimators", WithoutKeywords), all_checks()["check_fits"])
    assert found.outcome == "skipped"
    assert found.text.startswith("it takes no arguments for Lightning's Trainer")


@pytest.mark.parametrize("backend", ["compile", "bf16"])
@pytest.mark.parametrize("case", [CASE, Case("likelihoods", Gauss), Case("losses", Elbo)], ids=repr)
def test_sound_components_pass_under_other_backends(
    backend: str, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIDL_TEST_BACKEND", backend)
    one = Case(case.kind, case.component, shapes=[(1, 6, 5)])
    for check in checks_for(one):
        if check.name != "check_ddp":  # the pair has read the environment when it started
            found = run_check(one, check)
            assert found.outcome == "passed", found.text
