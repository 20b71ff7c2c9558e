"""Checks of every torch module: gradients, dtype, device, seeds, state, pickle, compile, DDP."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from nidl_core.registry import SESSION, registry
from nidl_core.seeding import preserved, seed_all
from nidl_core.testing.backends import compiled
from nidl_core.testing.cases import Case
from nidl_core.testing.catalogue import EVERYWHERE, MODULES, NotApplicable, check
from nidl_core.testing.processes import pair, spawned
from nidl_core.testing.settings import settings
from nidl_core.testing.subjects import (
    Subject,
    assert_close,
    first,
    shapes_of,
    smallest,
    subject,
    subjects,
    unseeded,
)

N = 4


@check(*MODULES)
def check_registers_its_parts(case: Case) -> None:
    """It calls `super().__init__()`, and is a module with train and eval modes."""
    module = first(case).module
    assert module.training, "a module that was just built is in training mode"
    assert not module.eval().training, "eval() does not end training mode"
    known = {id(part) for part in (*module.modules(), *module.parameters())}
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            held = value.values() if isinstance(value, dict) else value
            if name.startswith("_") or not isinstance(value, (list, tuple, dict)):
                continue
            lost = [x for x in held if isinstance(x, (nn.Module, nn.Parameter))]
            assert all(id(x) in known for x in lost), (
                f"{'.'.join(filter(None, [path, name]))} holds modules or parameters in a plain "
                f"{type(value).__name__}: torch does not find them. Use nn.ModuleList, nn.ModuleDict "
                "or nn.ParameterList"
            )


@check(*MODULES, backends=EVERYWHERE)
def check_gradients(case: Case) -> None:
    """Every parameter that asks for a gradient gets one, and it is finite; inputs get one too."""
    for built in subjects(case):
        inputs = [x.requires_grad_(x.is_floating_point()) for x in built.inputs(N)]
        outputs = built(*inputs)
        assert outputs.requires_grad, "the output has no gradient: it is detached"
        _scalar(outputs).backward()
        for name, parameter in built.module.named_parameters():
            if not parameter.requires_grad:
                continue
            assert parameter.grad is not None, (
                f"{name} gets no gradient: it is not used. Remove it, or set requires_grad=False"
            )
            assert bool(parameter.grad.isfinite().all()), f"the gradient of {name} is not finite"
        if case.kind == "losses":
            continue  # that it depends on p and q is check_figures'; data need no gradient
        assert inputs[0].grad is not None, "the output does not depend on the input"
        assert bool(inputs[0].grad.isfinite().all()), "the gradient of the input is not finite"


@check(*MODULES, backends=EVERYWHERE)
def check_inputs_unchanged(case: Case) -> None:
    """No input is changed in place, in training or evaluation."""
    for built in subjects(case):
        for training in (True, False):
            built.module.train(training)
            inputs = built.inputs(N)
            before = [x.clone() for x in inputs]
            with torch.no_grad():
                built(*inputs)
            for x, kept in zip(inputs, before, strict=True):
                assert torch.equal(x, kept), "an input was changed in place"


@check(*MODULES)
def check_dtype(case: Case) -> None:
    """The output follows the dtype of module and inputs: float64 in, float64 out."""
    for built in subjects(case):
        built.module.double()
        found = built(*built.inputs(N, torch.float64)).dtype
        assert found == torch.float64, f"float64 in, {found} out"


# What torch says where control flow depends on values: the device meta has none to offer.
_NEEDS_VALUES = (
    "on meta tensors",
    "register_meta function",
    "with Meta tensors",
    "out of meta tensor",
)


@check("encoders", "decoders", "likelihoods")  # a loss leaves autocast, which knows no meta device
def check_device(case: Case) -> None:
    """The output follows the device: tensors made inside are made where the input is."""
    built = first(case)
    inputs = [x.to("meta") for x in built.inputs(N)]
    built.module.to("meta")
    Distribution.set_default_validate_args(False)  # torch's own validation needs values
    try:
        found = built.plain(*inputs).device
    except (RuntimeError, NotImplementedError) as err:
        if any(sign in str(err) for sign in _NEEDS_VALUES):
            raise NotApplicable(
                f"the device meta has no values, and it looks at some: {err}"
            ) from None
        raise AssertionError(f"with module and inputs on the device meta: {err}") from err
    assert found.type == "meta", f"inputs on the device meta give an output on {found}"


@check(*MODULES, backends=EVERYWHERE)
def check_seeded(case: Case) -> None:
    """Weights and training noise follow torch's seed; evaluation draws nothing at random."""
    for shape in shapes_of(case):
        built, again = subject(case, shape), subject(case, shape)
        assert_same_state(built.module.state_dict(), again.module.state_dict(), "built")
        inputs = built.inputs(N)
        assert torch.equal(built(*inputs), again(*inputs)), "one seed gives two training outputs"
        if case.kind == "losses":
            continue  # the z that it is given is drawn
        built.module.eval()
        assert torch.equal(built.seeded(0, *inputs), built.seeded(1, *inputs)), (
            "evaluation depends on the random state"
        )


@check(*MODULES)
def check_leaves_torch_alone(case: Case) -> None:
    """It changes no setting of torch, seeds nothing and, in evaluation, moves no random state."""
    before = settings()
    built = first(case)
    inputs = built.inputs(N)
    built.run(built.module, *inputs)
    built.module.eval()
    states = random_states()
    built.run(built.module, *inputs)
    if case.kind != "losses":  # the z that they are given is drawn
        moved = [name for name, state in random_states().items() if state != states[name]]
        assert not moved, f"evaluation moves the random state of {', '.join(moved)}"
    changed = [name for name, value in settings().items() if value != before[name]]
    assert not changed, f"it changes {', '.join(changed)}"
    one, other = (_states_after(case, inputs, seed) for seed in (0, 1))
    seeded = [name for name, state in one.items() if state == other[name]]
    assert not seeded, f"it seeds {', '.join(seeded)}: whatever the seed was, it is then the same"


def random_states() -> dict[str, bytes]:
    """Whose global random state, and what it is."""
    return {
        "torch": torch.random.get_rng_state().numpy().tobytes(),
        "numpy": pickle.dumps(np.random.get_state()),
        "Python": pickle.dumps(random.getstate()),
    }


def _states_after(case: Case, inputs: tuple[Tensor, ...], seed: int) -> dict[str, bytes]:
    seed_all(seed)
    built = unseeded(case, smallest(case))
    built.run(built.module, *inputs)
    return random_states()


@check(*MODULES)
def check_state_dict(case: Case) -> None:
    """A strict round trip of its state_dict, after a training step, gives the same outputs."""
    for shape in case.accepted:
        built, other = subject(case, shape), subject(case, shape, seed=1)
        inputs = built.inputs(N)
        built(*inputs)  # moves running statistics, which must travel too
        state = copy.deepcopy(built.module.state_dict())
        other.module.load_state_dict(state, strict=True)
        assert_same_state(state, other.module.state_dict(), "loaded")
        _assert_same_output(built, other, inputs, "loaded from its state_dict")


@check(*MODULES)
def check_pickle(case: Case) -> None:
    """Pickled and read again, it gives the same outputs: DataLoader workers and joblib do that."""
    built = first(case)
    inputs = built.inputs(N)
    built(*inputs)
    try:
        again = pickle.loads(pickle.dumps(built.module))
    except Exception as err:
        raise AssertionError(f"it cannot be pickled: {err}") from err
    read = Subject(again, built.run, built.draw, built.backend)
    _assert_same_output(built, read, inputs, "pickled and read again")


@check(*MODULES)
def check_fresh_process(case: Case) -> None:
    """Built from its name, parameters and saved weights in a spawned process, it does the same."""
    require_importable(case)
    built = first(case)
    inputs = tuple(x.cpu() for x in built.inputs(N))
    with torch.no_grad():
        built(*(x.to(built.backend.device) for x in inputs))
    built.module.eval().cpu()
    with torch.no_grad():
        expected = built.plain(*inputs)
    state = {name: value.cpu() for name, value in built.module.state_dict().items()}
    found = spawned(_rebuilt, sendable(case), smallest(case), state, inputs)
    assert_close(found, expected, 1e-5, "rebuilt")


def _rebuilt(case: Case, shape: Any, state: Any, inputs: Any) -> Tensor:
    torch.manual_seed(1)
    built = subject(case, shape, seed=1)
    built.module.load_state_dict(state, strict=True)
    built.module.eval().cpu()
    with torch.no_grad():
        return built.plain(*inputs)


@check(*MODULES)
def check_compile(case: Case) -> None:
    """torch.compile (aot_eager) gives what eager gives, outputs and gradients."""
    built, again = first(case), first(case)
    built.module.eval()
    again.module.eval()
    inputs = built.inputs(N)
    expected = built.plain(*inputs)
    with preserved():
        seed_all(0)
        found = compiled(again.run, "aot_eager")(again.module, *inputs)
    assert_close(found, expected, 1e-4, "compiled")
    parameters = {name: p for name, p in built.module.named_parameters() if p.requires_grad}
    others = [p for p in again.module.parameters() if p.requires_grad]
    if parameters:
        one, other = _gradients(found, others), _gradients(expected, [*parameters.values()])
        for name, gradient, wanted in zip(parameters, one, other, strict=True):
            assert_close(gradient, wanted, 1e-3, f"the gradient of {name}: compiled")


def _gradients(outputs: Tensor, parameters: list[nn.Parameter]) -> tuple[Tensor, ...]:
    """Zeros for a parameter that is not used: that is told by `check_gradients`."""
    return torch.autograd.grad(
        _scalar(outputs), parameters, allow_unused=True, materialize_grads=True
    )


@check(*MODULES, backends=EVERYWHERE | {"ddp"})
def check_ddp(case: Case) -> None:
    """Two processes train it by DistributedDataParallel, without unused parameters, in step."""
    require_importable(case)
    one, other = pair(_three_steps, sendable(case), smallest(case))
    assert_same_state(one, other, "in the two processes")


class _Wrapped(nn.Module):
    """A component as DistributedDataParallel wants it: inputs through forward, some parameter."""

    def __init__(self, built: Subject) -> None:
        super().__init__()
        self.component = built.module
        self.level = nn.Parameter(torch.ones(()))  # DDP refuses a module without parameters
        self._run = built.backend.run(built.run)

    def forward(self, *inputs: Tensor) -> Tensor:
        outputs: Tensor = self._run(self.component, *inputs)
        return outputs + 0 * self.level


def _three_steps(rank: int, case: Case, shape: Any) -> dict[str, Tensor]:
    built = subject(case, shape)
    wrapped = nn.parallel.DistributedDataParallel(_Wrapped(built))
    optimiser = torch.optim.SGD(wrapped.parameters(), lr=1e-3)
    with built.backend.scope():
        for step in range(3):  # unused parameters of one step show at the next; some come in turns
            optimiser.zero_grad()
            _scalar(wrapped(*built.inputs(N, seed=2 * step + rank))).backward()
            optimiser.step()
    return {name: value.detach().clone() for name, value in built.module.named_parameters()}


def sendable(case: Case) -> Case:
    """Without what cannot be pickled, and need not be."""
    return Case(case.kind, case.component, dict(case.params), list(case.shapes))


def require_importable(case: Case) -> None:
    """Raise `NotApplicable` for a class that another process cannot import."""
    if isinstance(case.component, str):
        entry = registry(case.kind).entry(case.component)
        if entry.distribution == SESSION:
            raise NotApplicable("the name is registered in this process alone")
    elif case.cls.__module__ == "__main__" or "<locals>" in case.cls.__qualname__:
        raise NotApplicable("the class cannot be imported from another process")


def _scalar(outputs: Tensor) -> Tensor:
    """A function of the outputs in which no symmetry hides a gradient."""
    weights = torch.linspace(0.5, 1.5, outputs.numel(), device=outputs.device)
    return (outputs.float().flatten() * weights).mean()


def _assert_same_output(one: Subject, other: Subject, inputs: tuple[Tensor, ...], how: str) -> None:
    one.module.eval()
    other.module.eval()
    assert torch.equal(one.plain(*inputs), other.plain(*inputs)), (
        f"{how}, it gives other outputs: what they depend on must be parameters and buffers"
    )


def assert_same_state(one: Mapping[str, Any], other: Mapping[str, Any], where: str) -> None:
    """Raise unless two state_dicts have the same names and, bit for bit, the same values."""
    assert one.keys() == other.keys(), f"{where}: {sorted(set(one) ^ set(other))} in one alone"
    for name, value in one.items():
        if isinstance(value, Tensor):
            assert torch.equal(value, other[name]), f"{where}: {name} differs"
