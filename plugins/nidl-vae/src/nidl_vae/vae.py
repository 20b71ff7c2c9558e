"""Variational auto-encoder (Kingma & Welling 2014, Higgins et al. 2017).

x (N, C, *S) -> encoder h (N, F) -> q(z|x) = N(mu, s^2) (N, L) -> z -> decoder theta -> p(x|z).
"""

from __future__ import annotations

import copy
import math
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn, optim
from torch.distributions import Distribution, Normal

from nidl_core.assembly import split_spec
from nidl_core.data import plain_rows
from nidl_core.errors import InvalidParameter, ShapeError, SpecError
from nidl_core.estimator import Estimator, TransformerMixin
from nidl_core.inference import evaluating, infer
from nidl_core.interfaces import Likelihood
from nidl_core.parameters import check_float, check_int
from nidl_core.seeding import draw_seed, seeded
from nidl_vae import probe
from nidl_vae.bound import centre, check_same_shape, implied, kl_to_prior, log_prob
from nidl_vae.loss import DISTRIBUTIONS
from nidl_vae.noise import row_noise
from nidl_vae.probe import shape_of


class VAE(TransformerMixin, Estimator):
    """Variational auto-encoder: latents, reconstructions, samples and a bound on log p(x).

    Components are specs (a name, `{"name": ..., "params": {...}}`, a class), built when the data's
    shape is known, or `nn.Module`s, of which the estimator trains copies.

    Parameters
    ----------
    encoder : spec or nn.Module
        x (N, C, *S) -> h (N, F). The linear layers for the posterior's mean and log-variance are
        added.
    decoder : spec or nn.Module
        z (N, L) -> theta. A module may also give a `torch.distributions.Distribution`, or a tensor:
        see `default_dist`.
    encoder_out_dim : int, optional
        F; asked of the encoder, or found with one sample, if not given.
    latent_dim : int
        L, the number of latent dimensions.
    beta : float
        Weight of the KL divergence in the loss. Changes reach the loss at once.
    default_dist : str
        What a handed-in decoder's plain tensor is: the mean of a Normal ("normal"; the loss is L2,
        the likelihood has variance 1/2) or of a Laplace ("laplace"; L1, scale 1), or Bernoulli
        probabilities ("bernoulli"; cross-entropy). For a decoder by name: the name of a registered
        likelihood.
    stochastic_transform : bool
        Whether latents are samples from q(z | x) (True) or its mean (False). The noise of `transform`
        and `score` belongs to the row and the seed: it does not depend on batches, order or
        processes, and equal rows get equal noise. For several draws of one x, call the estimator.
    lr, weight_decay : float
        Of the AdamW optimiser.
    random_state : int, None, numpy RandomState or Generator
        Initialisation, shuffling and noise. None is fresh entropy, whatever the global seed.
    likelihood : spec or nn.Module, optional
        p(x | z) as a function of the decoder's output theta. By default that of `default_dist`.
    loss : spec or callable
        (x, p, q, z) -> dict with "loss". By name it gets this estimator's `beta`, if it takes one.
    batch_size, num_workers, warm_start, **trainer_kwargs
        See `nidl_core.Estimator`.

    Attributes
    ----------
    encoder, decoder, likelihood : nn.Module
        The networks, once built (modules handed in: at construction).
    fc_mu, fc_logvar : nn.Linear
        h (N, F) -> mean and log-variance of q(z | x), each (N, L).
    criterion : callable
        The loss; a `BetaVAELoss` by default.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> vae = VAE(nn.Flatten(), nn.Linear(2, 6), encoder_out_dim=6, latent_dim=2, max_epochs=1)
    >>> x = torch.randn(8, 6)
    >>> vae.set_params(random_state=0).fit(x).transform(x).shape
    torch.Size([8, 2])

    References
    ----------
    Kingma & Welling, Auto-Encoding Variational Bayes, ICLR 2014 (arXiv 1312.6114). Higgins et al.,
    beta-VAE, ICLR 2017.
    """

    components: ClassVar[dict[str, str]] = {
        "encoder": "encoders",
        "decoder": "decoders",
        "likelihood": "likelihoods",
        "loss": "losses",
    }
    structural = frozenset(components) | {"encoder_out_dim", "latent_dim", "default_dist"}
    builds_early = True  # modules handed in work before `fit`
    _said_cross_entropy = False

    def __init__(
        self,
        encoder: Any,
        decoder: Any,
        encoder_out_dim: int | None = None,
        latent_dim: int = 32,
        beta: float = 1.0,
        default_dist: str = "normal",
        stochastic_transform: bool = True,
        lr: float = 1e-4,
        weight_decay: float = 0.01,
        random_state: Any = None,
        *,
        likelihood: Any = None,
        loss: Any = "beta_vae",
        batch_size: int = 64,
        num_workers: int = 0,
        warm_start: bool = False,
        **trainer_kwargs: Any,
    ) -> None:
        super().__init__(
            encoder=encoder,
            decoder=decoder,
            encoder_out_dim=encoder_out_dim,
            latent_dim=latent_dim,
            beta=beta,
            default_dist=default_dist,
            stochastic_transform=stochastic_transform,
            lr=lr,
            weight_decay=weight_decay,
            random_state=random_state,
            likelihood=likelihood,
            loss=loss,
            batch_size=batch_size,
            num_workers=num_workers,
            warm_start=warm_start,
            **trainer_kwargs,
        )

    # Steps --------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """Latents z (N, L), sampled from q(z | x)."""
        return self._draw(self.encode(x), x)

    def training_step(
        self, batch: Any, batch_idx: int, dataloader_idx: int | None = 0
    ) -> dict[str, Tensor]:
        """One training step: the scalars "loss", "rec_loss" and "kl_loss", logged as "train/...".

        `batch` is x (N, C, *S), or (x, y, ...).
        """
        return self._step(batch, "train")

    def validation_step(
        self, batch: Any, batch_idx: int, dataloader_idx: int | None = 0
    ) -> dict[str, Tensor]:
        """One validation step: as `training_step`, logged as "val/..."."""
        return self._step(batch, "val")

    def transform_step(self, batch: Any, batch_idx: int, dataloader_idx: int | None = 0) -> Tensor:
        """Latents z (N, L) of a batch: a sample from q(z | x), or its mean."""
        x = self.as_input(batch)
        q = self.encode(x)
        return self._draw(q, x) if self.stochastic_transform else q.loc

    def configure_optimizers(self) -> list[optim.Optimizer]:
        """One AdamW over all parameters."""
        return [optim.AdamW(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)]

    # The model ----------------------------------------------------------------------------------

    def encode(self, x: Tensor) -> Normal:
        """The posterior q(z | x): a Normal of batch shape (N, L), in float32 or better."""
        if "fc_mu" not in self._modules:
            self._add_heads(x[:1])
        h = self.encoder(x)  # (N, F)
        log_variance = _full(self.fc_logvar(h))
        return Normal(_full(self.fc_mu(h)), (0.5 * log_variance).exp(), validate_args=False)

    def decode(self, z: Tensor, *, observed: Tensor | None = None) -> Distribution | Tensor:
        """p(x | z) for z (N, L): a distribution, or the plain tensor of a decoder handed in.

        `observed` is the data x that z was encoded from, while training: likelihoods that learn
        from residuals see it. With a mask of M positions, p is about those alone: event (C, M).
        """
        like = next(self.decoder.parameters(), z)
        theta = self.decoder(z.to(like.dtype))  # (N, P*C, *S)
        if self._mask is not None and isinstance(theta, Tensor):
            theta = self._counted(theta)  # (N, P*C, M)
        if "likelihood" not in self._modules:
            if isinstance(theta, Tensor):
                return _full(theta)
            if self._mask is not None:
                raise SpecError(
                    "the data have a mask, and the decoder gives a distribution of all positions, "
                    f"{type(theta).__name__}. Let it give a tensor, or give likelihood='normal', or another by name."
                )
            p: Distribution = theta
            return p
        with _full_precision(z):
            theta = _full(theta)
            if observed is not None:
                self.likelihood.observe(self._counted(observed), theta)
            p = self.likelihood(theta)
        if not isinstance(p, Distribution):
            raise SpecError(
                f"the likelihood {type(self.likelihood).__name__} must return a "
                f"torch.distributions.Distribution, got {type(p).__name__}."
            )
        return p

    def sample(self, n_samples: int, seed: int | None = None, draw: bool = False) -> Tensor:
        """New data from the prior: (n_samples, C, *S), on the model's device.

        Gives the mean of p(x | z) for z ~ N(0, I), or with `draw` a draw from it; in evaluation
        mode and without gradients. `seed` makes it repeatable and leaves the random state alone.
        """
        check_int("n_samples", n_samples, least=1)
        if "decoder" not in self._modules:
            check_is_fitted(self)
        like = next(self.decoder.parameters(), torch.empty(0, device=self.device))
        heads = self._modules.get("fc_mu")
        latent_dim = heads.out_features if isinstance(heads, nn.Linear) else self.latent_dim
        scope = nullcontext() if seed is None else seeded(draw_seed(seed, name="seed"))
        with scope, torch.no_grad(), evaluating(self):
            z = torch.randn(n_samples, latent_dim)  # on the CPU: a seed means the same everywhere
            parts = []
            for part in z.split(self.batch_size):
                p = self._distribution(self.decode(part.to(like)))
                parts.append(self._whole(p.sample() if draw else centre(p)))
            return torch.cat(parts)

    def reconstruct(self, X: Any) -> Any:
        """The mean of p(x | z) at the posterior mean z, shape of X. Array in, array out."""
        data = self.read(X)
        return self.answer(infer(self, data, lambda x, _: self._mean(self.encode(x).loc)), data)

    def inverse_transform(self, Z: Any) -> Any:
        """The mean of p(x | z) for latents Z (N, L): (N, C, *S). Array in, array out."""
        check_is_fitted(self)
        data, width = plain_rows(Z), self.fc_mu.out_features
        if data.x.ndim != 2 or data.x.shape[1] != width:
            raise ShapeError(f"latents have the shape (N, {width}), got {tuple(data.x.shape)}.")
        return self.answer(infer(self, data, lambda z, _: self._mean(z), shape=(width,)), data)

    def score(self, X: Any, y: Any = None) -> float:
        """Mean evidence lower bound of X, in nats, whatever the training objective was.

        One posterior sample a row; it depends on the row and the seed, not on batches or processes.
        """
        return float(infer(self, self.read(X), self._elbo_step).mean())

    def score_samples(self, X: Any, K: int = 64, return_std: bool = False) -> Any:
        """Log-likelihood of each row, in nats: the importance-weighted bound with K samples.

        L_K = log 1/K sum_k p(x, z_k) / q(z_k | x) (Burda et al. 2016, arXiv 1509.00519): a lower
        bound in expectation that grows with K towards log p(x). Accumulated in float64.

        Returns an array (N,), and with `return_std` its standard errors (N,) as well (by the delta
        method; K >= 2).
        """
        check_int("K", K, least=2 if return_std else 1)
        data = self.read(X)
        weights = infer(self, data, lambda x, index: self._log_weights(x, index, K))  # (N, K)
        bound = torch.logsumexp(weights, dim=1) - math.log(K)
        if not return_std:
            return self.answer(bound, data)
        spread = (weights - bound[:, None]).exp().std(dim=1) / math.sqrt(K)
        return self.answer(bound, data), self.answer(spread, data)

    # Building -----------------------------------------------------------------------------------

    def build_networks(self, sample: Tensor | None) -> None:
        shape = None if sample is None else tuple(sample.shape[1:])
        copies: dict[int, Any] = {}
        self._place("encoder", None if shape is None else {"input_shape": shape}, copies)
        self._place("likelihood", {}, copies)
        if shape is not None:
            blocks = getattr(self._modules.get("likelihood"), "params_per_value", 1)
            output_shape = (blocks * shape[0], *shape[1:])
            context = {"latent_dim": self.latent_dim, "output_shape": output_shape}
            self._place("decoder", context, copies)
        else:
            self._place("decoder", None, copies)
        self._tensor_dist = self.default_dist
        self._place_loss()
        width = self.encoder_out_dim
        if sample is not None:
            width = self._probe_encoder(sample)
        elif width is None:
            width = getattr(self._modules.get("encoder"), "out_features", None)
        if width is not None:
            self._place_heads(width)
        if sample is not None:
            self._probe_decoder(sample)

    def check_values(self) -> None:
        super().check_values()
        check_int("latent_dim", self.latent_dim, least=1)
        if self.encoder_out_dim is not None:
            check_int("encoder_out_dim", self.encoder_out_dim, least=1)
        check_float("beta", self.beta)
        check_float("lr", self.lr, above=True)
        check_float("weight_decay", self.weight_decay)

    def check_names(self, given: dict[str, Any]) -> None:
        super().check_names(given)
        split_spec("losses", given["loss"])  # None is no loss
        for name in ("encoder", "decoder", "likelihood"):
            spec = given[name]
            if spec is None and name == "likelihood":
                continue
            base = Likelihood if name == "likelihood" else nn.Module
            is_object = split_spec(self.components[name], spec)[0] is None
            if is_object and not isinstance(spec, base):
                raise SpecError(
                    f"{name} must be a name, a spec, a class or an object derived from "
                    f"{base.__module__}.{base.__name__}, got {spec!r}."
                )
        if self._speaks_for_itself(given) and given["default_dist"] not in DISTRIBUTIONS:
            raise InvalidParameter("default_dist", given["default_dist"], f"one of {DISTRIBUTIONS}")

    def spec_of(self, name: str, given: dict[str, Any]) -> Any:
        if name == "likelihood" and given[name] is None and not self._speaks_for_itself(given):
            return given["default_dist"]
        return given[name]

    def component_params(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        params = super().component_params(name, given)
        if name == "loss" and self._gives_beta(given):
            params["beta"] = given["beta"]
        return params

    def params_changed(self, names: set[str]) -> None:
        if "beta" in names and "criterion" in self._modules and self._gives_beta():
            self.criterion.beta = self.beta

    def check_batch(self, x: Tensor) -> None:
        if "likelihood" in self._modules:
            self.likelihood.check(self._counted(x))
            return
        with torch.no_grad(), evaluating(self):
            p = self.decode(self.encode(x[:1]).loc)
        soft = probe.check_bernoulli(p, x, self._tensor_dist)
        if soft and not self._said_cross_entropy:
            self._said_cross_entropy = True
            warnings.warn(probe.CROSS_ENTROPY, UserWarning, stacklevel=2)

    def _place(self, name: str, context: dict[str, Any] | None, copies: dict[int, Any]) -> None:
        """Install a component: built, if `context` is there, or a copy of the module handed in.

        `copies` makes one copy of what several modules share.
        """
        given, recipe = self._given[name], self.recipe(name)
        if recipe is None and given is not None:
            setattr(self, name, copy.deepcopy(given, copies))
        elif recipe is not None and context is not None:
            setattr(self, name, recipe.make(**context))

    def _place_heads(self, width: int) -> None:
        like = next(self.parameters(), torch.empty(0))
        for head in ("fc_mu", "fc_logvar"):
            layer = nn.Linear(width, self.latent_dim, device=like.device, dtype=like.dtype)
            setattr(self, head, layer)

    def _add_heads(self, sample: Tensor) -> None:
        """Before `fit`, for an encoder handed in whose width was not known until now."""
        self.check_values()
        if "encoder" not in self._modules:
            check_is_fitted(self)
        with seeded(draw_seed(self.random_state, peek=True)), self.assembly():
            self._place_heads(self._probe_encoder(sample))

    def _place_loss(self) -> None:
        recipe = self.recipe("loss")
        self.criterion = copy.deepcopy(self.loss) if recipe is None else recipe.make()
        if self._gives_beta():
            self.criterion.beta = self.beta
        if recipe is not None and self._speaks_for_itself(self._given):
            if "default_dist" in recipe.defaults() and "default_dist" not in recipe.params:
                self.criterion.default_dist = self.default_dist

    def _gives_beta(self, given: dict[str, Any] | None = None) -> bool:
        """A loss by name gets this estimator's beta, unless its spec has one or it takes none."""
        recipe = self.recipe("loss", given)
        return recipe is not None and "beta" in recipe.defaults() and "beta" not in recipe.params

    def _speaks_for_itself(self, given: dict[str, Any]) -> bool:
        """Whether the decoder was handed in, to be read without a likelihood."""
        return given["likelihood"] is None and split_spec("decoders", given["decoder"])[0] is None

    def _probe_encoder(self, sample: Tensor) -> int:
        with torch.no_grad(), evaluating(self):
            return probe.width(self.encoder, self.as_input(sample), self.encoder_out_dim)

    def _probe_decoder(self, sample: Tensor) -> None:
        x = self.as_input(sample)
        with torch.no_grad(), evaluating(self):
            z = torch.zeros(1, self.latent_dim, device=x.device, dtype=x.dtype)
            probe.check_decoded(self.decode, z, self._counted(x))

    @classmethod
    def conformance(cls) -> list[dict[str, Any]]:
        """One small case for `nidl_core.testing`; it needs networks and a likelihood by name."""
        mlp = {"name": "mlp", "params": {"widths": [5]}}
        small = {
            "encoder": mlp,
            "decoder": mlp,
            "latent_dim": 2,
            "max_epochs": 1,
            "random_state": 0,
        }
        return [
            {
                "params": {**small, "stochastic_transform": False},
                "needs": {"encoders": "mlp", "decoders": "mlp", "likelihoods": "normal"},
            }
        ]

    # Terms --------------------------------------------------------------------------------------

    def _step(self, batch: Any, stage: str) -> dict[str, Tensor]:
        x = self.as_input(batch)
        q = self.encode(x)
        z = self._draw(q, x)
        p = self.decode(z, observed=x if stage == "train" else None)
        with _full_precision(x):
            x = _full(self._counted(x))
            figures = self._losses(x, p, q, z)
        logged = {f"{stage}/{name}": value.detach() for name, value in figures.items()}
        self.log_figures(logged, batch_size=len(x))
        return {name: figures[name] for name in ("loss", "rec_loss", "kl_loss")}

    def _losses(
        self, x: Tensor, p: Distribution | Tensor, q: Normal, z: Tensor
    ) -> dict[str, Tensor]:
        """The loss's own figures, the terms that it leaves out, and the true bound."""
        check_same_shape(shape_of(p), x.shape)
        reads_tensors = hasattr(self.criterion, "default_dist")
        figures = self.criterion(x, p if reads_tensors else self._distribution(p), q, z)
        if not isinstance(figures, dict) or "loss" not in figures:
            name = type(self.criterion).__name__
            raise SpecError(
                f"the loss {name} must return a dict of scalars with 'loss', got {figures!r}."
            )
        figures = {key: torch.as_tensor(value) for key, value in figures.items()}
        if shaped := {key: tuple(v.shape) for key, v in figures.items() if v.ndim}:
            name = type(self.criterion).__name__
            raise SpecError(
                f"the loss {name} must give scalars, averaged over the batch, got {shaped}."
            )
        with torch.no_grad():
            rec_loss, kl_loss = -log_prob(self._distribution(p), x).mean(), kl_to_prior(q).mean()
        return {"rec_loss": rec_loss, "kl_loss": kl_loss, **figures, "elbo": -(rec_loss + kl_loss)}

    def _elbo_step(self, x: Tensor, index: int) -> Tensor:
        if index == 0:
            self.check_batch(x)
        q = self.encode(x)
        p = self._distribution(self.decode(self._draw(q, x)))
        with _full_precision(x):
            return log_prob(p, _full(self._counted(x)), exact=True) - kl_to_prior(q).double()

    def _log_weights(self, x: Tensor, index: int, draws: int) -> Tensor:
        """log p(x, z_k) - log q(z_k | x) for K samples of each row: (n, K), float64."""
        if index == 0:
            self.check_batch(x)
        q = self.encode(x)
        loc, scale = q.loc.double(), q.scale.double()
        noise = row_noise(x, int(self.inference_seed or 0), draws, loc.shape[1])  # (K, n, L)
        seen = _full(self._counted(x))
        weights = []
        for e in noise:
            z = loc + scale * e
            p = self._distribution(self.decode(z.to(x.dtype)))
            # log N(z; 0, I) - log N(z; loc, scale): the constants cancel
            prior_to_posterior = (0.5 * (e.square() - z.square()) + scale.log()).sum(1)
            with _full_precision(x):
                weights.append(log_prob(p, seen, exact=True) + prior_to_posterior)
        return torch.stack(weights, dim=1)

    def _mean(self, z: Tensor) -> Tensor:
        return self._whole(centre(self._distribution(self.decode(z))))

    @property
    def _mask(self) -> Tensor | None:
        """Which positions of x count, bool (*S); None for all."""
        return self._buffers.get("data_mask")

    def _counted(self, x: Tensor) -> Tensor:
        """x (N, ?, *S) at the positions that count: (N, ?, M), or x itself where there is no mask."""
        mask = self._mask
        if mask is None:
            return x
        if x.shape[2:] != mask.shape:
            raise ShapeError(
                f"the data have a mask of shape {tuple(mask.shape)}, got {tuple(x.shape)}. Decoders "
                "give theta of shape (N, P*C, *S)."
            )
        return x.flatten(2)[..., mask.flatten()]

    def _whole(self, values: Tensor) -> Tensor:
        """Values (N, C, M) back in their places, 0 at positions that do not count: (N, C, *S)."""
        mask = self._mask
        if mask is None:
            return values
        x = values.new_zeros(*values.shape[:2], mask.numel())
        x[..., mask.flatten()] = values
        return x.view(*values.shape[:2], *mask.shape)

    def _distribution(self, p: Distribution | Tensor) -> Distribution:
        return implied(p, self._tensor_dist) if isinstance(p, Tensor) else p

    def _draw(self, q: Normal, x: Tensor) -> Tensor:
        """z = mu + s * e (Kingma & Welling 2014, section 2.4), e keyed by row where a seed is set."""
        if self.inference_seed is None:
            noise = torch.randn_like(q.loc)
        else:
            noise = row_noise(x, self.inference_seed, 1, q.loc.shape[1])[0].to(q.loc)
        return q.loc + q.scale * noise

    @property
    def _n_features_out(self) -> int:  # scikit-learn's get_feature_names_out: vae0, vae1, ...
        heads = self._modules["fc_mu"]
        assert isinstance(heads, nn.Linear)
        return heads.out_features


def _full(x: Tensor) -> Tensor:
    """float32 at least."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _full_precision(x: Tensor) -> AbstractContextManager[Any]:
    return torch.autocast(x.device.type, enabled=False)
