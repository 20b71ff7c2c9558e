"""Estimator: scikit-learn's verbs on a LightningModule, and the mixins that say what it can do."""

from __future__ import annotations

import abc
import logging
from typing import Any

import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin
from sklearn.base import TransformerMixin as _SklearnTransformer
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from torch.utils.data import Dataset

from nidl_core import saving
from nidl_core.data import Data, Rows, as_data, input_of, is_loader
from nidl_core.errors import DataTypeError, InvalidParameter
from nidl_core.inference import check_shape, infer
from nidl_core.parameters import Parameters, same, trainer_parameters
from nidl_core.seeding import draw_seed, mix, preserved, seed_all
from nidl_core.training import check_callbacks, train

_log = logging.getLogger(__name__)
_said: set[str] = set()


class Estimator(Parameters, abc.ABC):
    """A deep generative model with scikit-learn's interface, trained by Lightning.

    A subclass defines `build_networks`, and Lightning's `training_step`, `validation_step` and
    `configure_optimizers`; `TransformerMixin` adds `transform`. Its `__init__` names its own
    parameters and hands all of them, and `**trainer_kwargs`, on to `super().__init__`.

    Parameters
    ----------
    random_state : int, None, numpy RandomState or Generator
        Governs initialisation, shuffling and sampling. None takes **fresh entropy at every fit,
        whatever `torch.manual_seed` or any other global seed was set to**; the seed drawn is kept
        in `seed_`. An int gives the same weights bit for bit on a CPU.
    batch_size : int
        Rows in a batch, for data that come without batches of their own.
    num_workers : int
        Processes that load a Dataset; arrays and tensors need none.
    warm_start : bool
        Whether `fit` goes on from the weights of the last fit instead of starting anew.
    **trainer_kwargs
        Lightning's Trainer arguments (`max_epochs`, `accelerator`, `precision`, `callbacks`, ...).
        If none of `max_epochs`, `max_steps`, `max_time` is given, 100 epochs.

    Attributes
    ----------
    seed_ : int
        The seed of the last fit.
    input_shape_ : tuple of int
        (C, *S) of the data.
    data_spec_ : plain data
        What the data said of how they were made; None where they said nothing.
    history_ : list of dict
        What was logged, one row an epoch. Empty after strategies that spawn their processes.

    Notes
    -----
    Parameters set after a fit: those of the networks count from the next fit; those that only
    inference reads (`batch_size`, `accelerator`, `random_state`, ...) at once. The random state is the
    process's own while a fit runs: fit in parallel with processes, not threads.
    """

    input_shape_: tuple[int, ...]
    data_spec_: Any
    seed_: int
    _inference_seed: int | None = None

    def fit(
        self,
        X: Any = None,
        y: Any = None,
        *,
        val: Any = None,
        ckpt_path: Any = None,
        train_dataloader: Any = None,
        val_dataloader: Any = None,
    ) -> Any:
        """Train on X, from the beginning (unless `warm_start`).

        Parameters
        ----------
        X : array, tensor, Dataset, DataLoader, path of a .npy file, ...
            x of shape (N, C, *S), or (N, features). Batches may be x or (x, y, ...).
        y : ignored, or a loader
            A loader or Dataset in second place is the validation data.
        val : as X
            Validation data.
        ckpt_path : path, optional
            A Lightning checkpoint to resume from.
        train_dataloader, val_dataloader : as X
            Other names for X and `val`.

        Raises
        ------
        InvalidParameter, ShapeError, DataError
            Before training starts. An interrupted or failed fit leaves the estimator unfitted.
        NonFiniteError
            When the loss becomes NaN or infinite.
        """
        if isinstance(y, Dataset) or is_loader(y):
            val = y if val is None else val
        elif getattr(y, "ndim", 0) > 2:
            raise DataTypeError(
                "the second place is y (labels, ignored), and this is no label: give validation data as "
                "fit(X, val=...)."
            )
        X = X if train_dataloader is None else train_dataloader
        val = val if val_dataloader is None else val_dataloader
        if X is None:
            raise DataTypeError("fit needs data: fit(X), with an array, tensor, Dataset or loader.")
        continues = bool(self.warm_start) and self._fitted
        self._fitted = False
        self.check_values()
        for name in ("n_features_in_", "feature_names_in_"):  # an earlier fit's
            self.__dict__.pop(name, None)
        data = as_data(X, self, reset=True)
        self.data_spec_ = data.spec
        val_data = None if val is None else as_data(val, self)
        seed = draw_seed(self.random_state)
        if self.random_state is None:
            _say_once(
                f"random_state=None: this fit draws fresh entropy, whatever the global seed (here "
                f"{seed}, kept in seed_). Pass random_state=<int> to make it repeatable."
            )
        with preserved():
            seed_all(seed)
            sample = data.sample().to(torch.get_default_dtype())
            if continues:
                self._check_continues(sample, data.mask)
                self._continued += 1
                seed = mix(seed, self._continued)  # else each warm fit would repeat the same noise
            else:
                self._continued = 0
                seed_all(seed)  # anew: reading the sample may have drawn some numbers
                self.assemble_seeded(sample, data.mask)
            self.history_: list[dict[str, float]] = []
            self.input_shape_ = tuple(sample.shape[1:])
            self.n_features_in_ = sample.shape[1]
            if val_data is not None:
                check_shape(val_data.sample(), self.input_shape_)
            self.seed_ = train(
                self,
                data.loader(
                    self.batch_size,
                    self.num_workers,
                    shuffle=not self._given.get("overfit_batches"),
                ),
                val_data and val_data.loader(self.batch_size, self.num_workers, shuffle=False),
                seed=seed,
                given={n: v for n, v in self._given.items() if n in trainer_parameters()},
                ckpt_path=ckpt_path,
            )
        self._fitted = True
        return self

    def _check_continues(self, sample: Tensor, mask: Tensor | None) -> None:
        """Raise unless a warm start can go on with these networks, on these data."""
        changed = [n for n in self.structural if not same(self._given[n], self._built_from[n])]
        if changed:
            raise InvalidParameter(
                "warm_start", True, f"False after a change of {', '.join(sorted(changed))}"
            )
        check_shape(sample, self.input_shape_)
        old = self._buffers.get("data_mask")
        if not (old is mask or (old is not None and mask is not None and old.cpu().equal(mask))):
            raise InvalidParameter("warm_start", True, "False for data with another mask")

    def check_values(self) -> None:
        """Raise `InvalidParameter` for an impossible value, of the Trainer's callbacks too."""
        super().check_values()
        check_callbacks(self._given)

    def save(self, path: Any) -> None:
        """Write the fitted estimator to one file, without pickle. See `nidl_core.saving.save`."""
        saving.save(self, path)

    @property
    def inference_seed(self) -> int | None:
        """The seed of a running `transform`, `score` or validation; None elsewhere."""
        return self._inference_seed

    def check_batch(self, x: Tensor) -> None:
        """Raise `DataError` if x (N, C, *S), the first batch, is not what this model is for."""

    def as_input(self, batch: Any) -> Tensor:
        """x of a batch, contiguous, in the dtype and on the device of the networks."""
        x = input_of(batch)
        like = next(self.parameters(), None)
        if like is None:
            x = x.to(torch.get_default_dtype())
        else:
            x = x.to(device=like.device, dtype=like.dtype)
        # Equal values, equal answers: torch takes other kernels for other strides, and an axis of
        # size 1 may have any. A view of the flat tensor has the usual ones.
        return x.contiguous().view(-1).view(x.shape)

    def log_figures(self, figures: dict[str, Tensor], *, batch_size: int) -> None:
        """Log epoch means, exact for any batch size and number of processes. Without a Trainer, nothing."""
        if self._trainer is not None:
            # Times the number of processes: Lightning averages the row counts over them in integers.
            rows = batch_size * self._trainer.world_size
            how: dict[str, Any] = {"on_step": False, "on_epoch": True, "sync_dist": True}
            bar = self._trainer.progress_bar_callback is not None
            shown = {k: v for k, v in figures.items() if bar and k.endswith("/loss")}
            rest = {k: v for k, v in figures.items() if k not in shown}
            self.log_dict(rest, batch_size=rows, **how)
            self.log_dict(shown, batch_size=rows, prog_bar=True, **how)

    def read(self, X: Any) -> Data:
        """Data to infer on; raises NotFittedError before `fit`."""
        check_is_fitted(self)
        return as_data(X, self)

    def answer(self, out: Tensor, data: Data) -> Any:
        """An array for an array, else a tensor."""
        return out.numpy() if data.as_array else out

    def __sklearn_is_fitted__(self) -> bool:
        return self._fitted


class TransformerMixin(ClassNamePrefixFeaturesOutMixin, _SklearnTransformer):
    """`transform` and `fit_transform`, by `transform_step(batch, batch_idx) -> (n, L)`.

    Goes before `Estimator` among the bases.
    """

    def transform(self, X: Any) -> Any:
        """Latents of X, shape (N, L): every row once, in the data set's order.

        Array in, array out; a tensor, Dataset or loader gives a tensor on the CPU.
        """
        estimator: Any = self
        data = estimator.read(X)
        return estimator.answer(infer(estimator, data, estimator.transform_step), data)

    @property
    def _n_features_out(self) -> int:  # scikit-learn's get_feature_names_out
        estimator: Any = self
        sample = Rows(torch.zeros(1, *estimator.input_shape_))
        return infer(estimator, sample, estimator.transform_step).shape[1]

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn is to know: x of any rank, latents of float32, repeatable with a seed."""
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.non_deterministic = getattr(self, "random_state", None) is None
        return tags


def _say_once(text: str) -> None:
    """Loud the first time in a process, then at the level of details."""
    _log.log(logging.INFO if "seed" in _said else logging.WARNING, text)
    _said.add("seed")
