"""One fit by Lightning's Trainer: quiet defaults, one seed, an error that says what went wrong."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch import Tensor
from torch.utils.data import DistributedSampler

from nidl_core import hooks
from nidl_core.data import OrderedLoader
from nidl_core.errors import InvalidParameter, NidlError, NonFiniteError
from nidl_core.seeding import mix, seed_all

DEFAULT_EPOCHS = 100
_NOISE = (
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*but have no `val_dataloader`.*",
    ".*requested to overfit but enabled train.*",  # a loader of ours is not shuffled then
    ".*LeafSpec.*is deprecated.*",  # Lightning's own use of torch, not the user's
)
_CHATTER = (
    "GPU available",
    "TPU available",
    "HPU available",
    "\U0001f4a1",
    "`Trainer.fit` stopped: `max_",
)


def train(
    estimator: Any,
    loader: Any,
    val_loader: Any,
    *,
    seed: int,
    given: dict[str, Any],
    ckpt_path: Any,
) -> int:
    """Fit with a new Trainer, and let it go; the seed that all processes used.

    Call it in a scope that restores the random state. Raises what the fit raises; Ctrl-C stays
    KeyboardInterrupt.
    """
    guard = FitGuard(seed, loader, val_loader)
    with _quiet():
        arguments = trainer_arguments(estimator, given, guard, validates=val_loader is not None)
        _rearm(callbacks_of(given))
        trainer = Trainer(**arguments)
        try:
            with _interruptible():
                trainer.fit(estimator, loader, val_loader, ckpt_path=ckpt_path)
        except (ValueError, RuntimeError) as err:
            guard.explain(err, estimator)
            raise
        finally:
            estimator.zero_grad(set_to_none=True)
            estimator._inference_seed = None
            estimator.trainer = None
    guard.check_weights(estimator)
    return guard.seed


def trainer_arguments(
    estimator: Any, given: dict[str, Any], guard: Callback, *, validates: bool
) -> dict[str, Any]:
    """The Trainer's arguments: what the user gave over defaults that write and print nothing.

    No limit of any kind means 100 epochs; a progress bar is for terminals; loggers and checkpoints
    are there when asked for.
    """
    callbacks = callbacks_of(given) + _added("nidl_fit_callbacks", Callback, estimator)
    arguments = {
        "enable_checkpointing": any(isinstance(c, Checkpoint) for c in callbacks),
        "enable_progress_bar": _shows_progress(callbacks) and not given.get("barebones"),
        "enable_model_summary": False,
        **given,
        "callbacks": [*callbacks, guard],
        "logger": _loggers(estimator, given),
    }
    limited = given.get("max_epochs") is not None or given.get("max_time") is not None
    if not limited and given.get("max_steps") in (None, -1):
        arguments["max_epochs"] = DEFAULT_EPOCHS
    if not validates:
        arguments.setdefault("limit_val_batches", 0)
    return arguments


def _added(hook: str, kind: type[Any], estimator: Any) -> list[Any]:
    """What plugins add to a fit. An answer that is no list of that kind is a fault of its plugin."""
    found: list[Any] = []
    for plugin, answer in hooks.collect(hook, estimator=estimator):
        if isinstance(answer, (list, tuple)) and all(isinstance(one, kind) for one in answer):
            found += answer
        else:
            err = TypeError(
                f"it must give a list of Lightning's {kind.__name__}, got {answer!r:.80}"
            )
            hooks.record(plugin, hook, err)
    return found


def _loggers(estimator: Any, given: dict[str, Any]) -> Any:
    """Those the user gave, and those of plugins unless the user said False; else False, for none."""
    asked = given.get("logger")
    if asked is False or given.get("barebones"):
        return asked or False
    added = _added("nidl_fit_loggers", Logger, estimator)
    if not added:
        return asked or False
    asked = _default_logger(given) if asked is True else asked or []
    return [*asked, *added] if isinstance(asked, Iterable) else [asked, *added]


def _default_logger(given: dict[str, Any]) -> Logger:
    """What Lightning makes of `logger=True`, which cannot stand in a list."""
    root = given.get("default_root_dir") or os.getcwd()
    try:
        return TensorBoardLogger(root)
    except ModuleNotFoundError:
        return CSVLogger(root)


def _shows_progress(callbacks: list[Callback]) -> bool:
    """Whether a person looks on, at a terminal or in a notebook, or a bar was given."""
    given = any(isinstance(callback, ProgressBar) for callback in callbacks)
    return given or sys.stdout.isatty() or "ipykernel" in sys.modules


def _rearm(callbacks: list[Callback]) -> None:
    """Let EarlyStopping begin anew: one that has stopped a fit would stop the next at once."""
    for callback in callbacks:
        if isinstance(callback, EarlyStopping):
            worst = torch.tensor(torch.inf if callback.monitor_op == torch.lt else -torch.inf)
            callback.wait_count, callback.stopped_epoch, callback.best_score = 0, 0, worst


def callbacks_of(given: dict[str, Any]) -> list[Callback]:
    """The callbacks among the Trainer arguments that were given, as a list."""
    callbacks = given.get("callbacks") or []
    return [*callbacks] if isinstance(callbacks, (list, tuple)) else [callbacks]


def check_callbacks(given: dict[str, Any]) -> None:
    """Raise `InvalidParameter` for callbacks that are none: a name of one, from a file, is no object."""
    if not all(isinstance(callback, Callback) for callback in callbacks_of(given)):
        expected = "objects of Lightning's Callback, which Python can hand in and no spec file"
        raise InvalidParameter("callbacks", given["callbacks"], expected)


class FitGuard(Callback):
    """What every fit needs: the seed shared and spread, the first batch checked, NaN stopped."""

    def __init__(self, seed: int, loader: Any, val_loader: Any) -> None:
        self.seed = seed
        self._orders = [x.sampler for x in (loader, val_loader) if isinstance(x, OrderedLoader)]
        self._splits_itself = isinstance(getattr(loader, "sampler", None), DistributedSampler)
        self._batch: Any = None
        self._checked: set[str] = set()  # the stages whose first batch was looked at
        self._seeded = -1  # the epoch whose stream has begun already
        self._at = 0, 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seed = trainer.strategy.broadcast(self.seed)  # random_state=None: that of rank 0
        for order in self._orders:
            order.seed, order.rank, order.world = self.seed, trainer.global_rank, trainer.world_size
        seed_all(mix(self.seed, trainer.global_rank))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning splits a user's DataLoader among processes by a sampler of its own, seeded by 0.
        sampler = getattr(trainer.train_dataloader, "sampler", None)
        if isinstance(sampler, DistributedSampler) and not self._splits_itself:
            sampler.seed = self.seed
        if trainer.current_epoch > 0:  # resumed: the loader's iterator was made before its time
            self._seed_epoch(trainer)
            iter(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]
            self._seeded = trainer.current_epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._seeded != trainer.current_epoch:
            self._seed_epoch(trainer)

    def _seed_epoch(self, trainer: Trainer) -> None:
        # Each epoch has a stream of its own: a resumed fit continues as if it had not stopped.
        seed_all(mix(self.seed, trainer.global_rank, 1 + trainer.current_epoch))

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._batch, self._at = batch, (trainer.current_epoch, trainer.global_step)
        self._check_first("train", batch, pl_module)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any
    ) -> None:
        self._batch = batch
        self._check_first("val", batch, pl_module)

    def _check_first(self, stage: str, batch: Any, module: LightningModule) -> None:
        if stage not in self._checked:
            self._checked.add(stage)
            module.check_batch(module.as_input(batch))  # type: ignore[operator]

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The same noise at each epoch, so that only the weights move the validation curve.
        pl_module._inference_seed = self.seed  # type: ignore[assignment]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module._inference_seed = None  # type: ignore[assignment]

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        self._check("the training loss", loss, pl_module)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor):
            self._check("the validation loss", loss, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._batch = None

    def _check(self, what: str, loss: Tensor, module: LightningModule) -> None:
        if not torch.isfinite(loss):
            epoch, step = self._at
            raise NonFiniteError(
                what=f"{what} ({loss.detach().item()})",
                epoch=epoch,
                step=step,
                causes=self._causes(module),
            )

    def explain(self, err: Exception, module: LightningModule) -> None:
        """Raise `NonFiniteError` if NaN or infinity is behind torch's own error (from a distribution)."""
        if isinstance(err, NidlError):
            return
        text = str(err)
        refused = "to satisfy the constraint" in text and ("nan" in text or "inf" in text)
        if refused or self._bad_batch(module) or not _all_finite(module):
            epoch, step = self._at
            causes = self._causes(module)
            raise NonFiniteError(what="the loss", epoch=epoch, step=step, causes=causes) from err

    def _bad_batch(self, module: LightningModule) -> bool:
        return self._batch is not None and not bool(torch.isfinite(self._input(module)).all())

    def _input(self, module: LightningModule) -> Tensor:
        x: Tensor = module.as_input(self._batch)  # type: ignore[operator]
        return x

    def check_weights(self, module: LightningModule) -> None:
        """The last step's gradients may have ruined what the last loss did not show."""
        if not _all_finite(module):
            epoch, step = self._at
            raise NonFiniteError(
                what="a weight", epoch=epoch, step=step, causes=self._causes(module)
            )

    def _causes(self, module: LightningModule) -> list[str]:
        causes = []
        if self._bad_batch(module):
            return ["the batch itself contains NaN or infinite values: clean or impute the data"]
        if self._batch is not None:
            scale = float(self._input(module).abs().max())
            if scale > 1e3:
                causes.append(f"data of large scale (up to {scale:g}): standardise them")
        if not _all_finite(module):
            causes.append("weights that diverged in an earlier step")
        causes.append("a learning rate that is too high (lower lr, or set gradient_clip_val)")
        if "16" in str(getattr(module, "_given", {}).get("precision", "")):
            causes.append("half precision (try precision='32-true')")
        return causes


def _all_finite(module: LightningModule) -> bool:
    return all(bool(torch.isfinite(p).all()) for p in module.parameters())


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Give KeyboardInterrupt back: Lightning turns it into SystemExit and ignores SIGINT after."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if main else None
    try:
        yield
    except SystemExit as err:
        if isinstance(err.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if main and handler is not None:
            signal.signal(signal.SIGINT, handler)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what Lightning says at each fit whatever the user did: devices, tips, workers."""
    loggers = [
        logging.getLogger(f"lightning.{p}.utilities.rank_zero") for p in ("pytorch", "fabric")
    ]
    with warnings.catch_warnings():
        for text in _NOISE:
            warnings.filterwarnings("ignore", message=text)
        try:
            for logger in loggers:
                logger.addFilter(_is_news)
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_CHATTER)
