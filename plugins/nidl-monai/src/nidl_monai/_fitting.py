"""What makes a network of MONAI fit: a trial run, what it never reaches, batches of one."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from nidl_core.seeding import preserved

_LARGEST = 512  # where the search for a size that fits ends


def trial(module: nn.Module, shape: Iterable[int]) -> tuple[tuple[int, ...], set[str]]:
    """The shape that `module` gives for one sample, and the parameters that it does not depend on.

    Runs in training mode. Raises what the module raises.
    """
    state = _stand_ins(module)
    trained = {name: tensor for name, tensor in state.items() if tensor.requires_grad}
    with preserved(), torch.enable_grad():
        y = _run(module, state, shape)
        grads = torch.autograd.grad(y.sum(), list(trained.values()), allow_unused=True)
    unreached = {name for name, grad in zip(trained, grads, strict=True) if grad is None}
    return tuple(y.shape[1:]), unreached


def remove(module: nn.Module, parameters: set[str]) -> None:
    """Put nothing in the place of layers that hold none but these parameters; freeze the others."""
    for path, layer in list(module.named_modules()):
        own = {name for name, _ in layer.named_parameters(path, recurse=False)}
        if own and own <= parameters and not list(layer.children()):
            parent, _, name = path.rpartition(".")
            setattr(module.get_submodule(parent), name, nn.Identity())
            continue
        for name in own & parameters:
            module.get_parameter(name).requires_grad_(False)


def least_axis(module: nn.Module, channels: int, dims: int) -> int | None:
    """The smallest n for which `module` takes a sample (channels, n, n, ...), or None."""
    state = _stand_ins(module)

    def fits(n: int) -> bool:
        try:
            _run(module, state, (channels, *[n] * dims))
        except Exception:
            return False
        return True

    low, high = 0, 1
    with preserved(), torch.no_grad():
        while not fits(high):
            low, high = high, 2 * high
            if high > _LARGEST:
                return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def take_batches_of_one(net: nn.Module) -> None:
    """Let the batch norms of `net` train where a batch is one value a channel. See `BatchNorm`."""
    for module in net.modules():
        if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            module.__class__ = BatchNorm  # keeps weights, buffers and settings; torch does so too


class BatchNorm(_BatchNorm):
    """Batch norm of any number of axes that uses its running statistics for a single value.

    Where a batch has one value a channel (one sample, one voxel), there is no variance to estimate,
    and torch raises: at the last batch of an epoch, say, with one row left over.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.track_running_stats and x.numel() == x.shape[1]:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


def _stand_ins(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers without values: what runs on them computes and changes nothing."""
    return {
        name: torch.empty_like(tensor, device="meta", requires_grad=tensor.requires_grad)
        for named in (module.named_parameters(), module.named_buffers())
        for name, tensor in named
    }


def _run(module: nn.Module, state: dict[str, Tensor], shape: Iterable[int]) -> Tensor:
    """What `module` gives for one sample, without values, whatever its size costs otherwise."""
    dtype = next(tensor.dtype for tensor in state.values() if tensor.is_floating_point())
    x = torch.empty(1, *shape, device="meta", dtype=dtype)
    y: Tensor = functional_call(module, state, (x,))
    return y
