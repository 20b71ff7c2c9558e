"""How far each scan lies from controls: in the latents, and in the voxels.

N scans, L latents, M voxels that count for the model.
"""

from __future__ import annotations

import json
import os
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.stats import chi2
from sklearn.covariance import LedoitWolf

from nidl_core.errors import DataError, InvalidParameter, NidlError
from nidl_core.parameters import check_float, check_int
from nidl_neuro.data import Scans
from nidl_neuro.decoding import as_scans, check_model, counted, decoded, fingerprint
from nidl_neuro.norms import VoxelNorms
from nidl_neuro.outputs import identifiers
from nidl_neuro.overlap import HASH, contents, people
from nidl_neuro.replacing import replacing

Array = NDArray[Any]

FORMAT = 1  # of the file
_LATENT = ("mahalanobis",)
_VOXEL = ("z_mean_square", "z_quantile", "z_extent", "z_cluster_ml")
SCORES = _LATENT + _VOXEL
_SINGULAR = 1e-12  # smallest over largest eigenvalue of a covariance
_COLLAPSED = 1e-3  # sd of the means of q(z | x), where z is of sd 1 in the prior


class Deviation:
    """Deviation scores of scans by a model, calibrated on controls that it was not fitted on.

    Scores, all larger for what is less usual:

    - `mahalanobis`: distance of the scan's latents (means of q(z | x)) from those of reference scans,
      sqrt((z - m)' C^-1 (z - m)) (Mahalanobis 1936, Proc. Natl. Inst. Sci. India 2), with C shrunk
      as Ledoit & Wolf (2004, J. Multivariate Analysis 88) do.
    - `z_mean_square`: mean of z² over voxels, where z is the scan's z-map.
    - `z_quantile`: the given quantile of |z| over voxels.
    - `z_extent`: share of the voxels in which |z| exceeds `threshold_`.
    - `z_cluster_ml`: volume of the largest group of such voxels that touch by a face.

    Each has a p-value from n controls that neither model nor reference have seen: (1 + number of
    controls with a score at least as large) / (n + 1) (conformal prediction: Vovk, Gammerman & Shafer
    2005, Algorithmic Learning in a Random World). For a new control, drawn as they were, it is at
    most 0.05 with a probability of at most 0.05, and so for every level, whatever the model and the
    distribution of scores, on the average over the choice of controls: one scan a person. None is
    below 1 / (n + 1), and scans that are scored by the same controls have dependent p-values.
    `mahalanobis_p_chi2` takes the squared distance for a χ² of L degrees of freedom instead: right
    only for Gaussian latents and a reference that is large.

    A score says how unusual a scan is for the controls, not why: a scanner that no control was in
    also makes scans unusual. The view of deviations is that of normative modelling (Marquand et al.
    2016, Biological Psychiatry 80).

    Parameters
    ----------
    model : fitted estimator with `encode` and `decode`
    quantile : float
        Of |z|: what `z_quantile` is, and what the threshold is taken from.
    per_voxel : bool
        Bring z-maps to the mean and spread that the reference has in each voxel: see `VoxelNorms`.
    random_state : int
        Which controls become the reference, where none is given.

    Attributes
    ----------
    threshold_ : float
        The median over reference scans of their `z_quantile`.
    norms_ : VoxelNorms or None
    mean_, covariance_ : arrays (L,) and (L, L), of the reference's latents
    calibration_ : DataFrame
        Scores of the controls that p-values are ranks among.
    seen_ : frozenset of bytes
        Hashes of the prepared voxels of reference and controls: what may not be scored by them.

    Example
    -------
    >>> deviation = Deviation(model).fit("controls.tsv")  # doctest: +SKIP
    >>> deviation.score("patients.tsv")  # doctest: +SKIP
    """

    threshold_: float
    norms_: VoxelNorms | None
    mean_: Array
    covariance_: Array
    calibration_: pd.DataFrame
    seen_: frozenset[bytes]

    def __init__(
        self,
        model: Any,
        *,
        quantile: float = 0.99,
        per_voxel: bool = False,
        random_state: int = 0,
    ) -> None:
        check_model(model)
        check_float("quantile", quantile, above=True)
        if quantile >= 1:
            raise InvalidParameter("quantile", quantile, "between 0 and 1")
        if not isinstance(per_voxel, bool):
            raise InvalidParameter("per_voxel", per_voxel, "True or False")
        check_int("random_state", random_state, least=0)
        self.model, self.quantile, self.per_voxel = model, float(quantile), per_voxel
        self.random_state = int(random_state)

    def fit(self, controls: Any, reference: Any = None) -> Deviation:
        """Calibrate on controls; Scans, or what `scans` takes, not among those of the model's fit.

        `reference` are the scans from which mean, covariance, norms and threshold come, of other
        people than the controls: those of the model's fit, say. Without it they are a random half of
        the controls' participants, and the other half calibrates. Raises `DataError` for too few, or
        for scans that are in both.
        """
        data = as_scans(self.model, controls)
        if reference is None:
            first, second = _halves(data, self.random_state)
            parts = (data, first), (data, second)
        else:
            other = as_scans(self.model, reference)
            parts = (other, np.arange(len(other))), (data, np.arange(len(data)))
        referred, calibrating = (contents(*part) for part in parts)
        _check_apart(referred, calibrating, [data.ids[row] for row in parts[1][1]])
        self._refer(*parts[0])
        self.calibration_ = self._scores(*parts[1])
        self.seen_ = frozenset(referred + calibrating)
        return self

    def score(self, source: Any) -> pd.DataFrame:
        """Identifiers, scores and p-values of scans, a row each; Scans, or what `scans` takes.

        Scans of the reference or the controls have no p-values (NaN), and a warning names them: they
        would look more usual, or all alike. They are known by their prepared voxels; another scan
        of the same person is not, nor are scans of the model's fit.

        Raises `NidlError` before `fit`.
        """
        self._check_fitted()
        data = as_scans(self.model, source)
        scores = self._scores(data, np.arange(len(data)))
        known = np.array([content in self.seen_ for content in contents(data)])
        if known.any():
            _warn_of([data.ids[row] for row in np.flatnonzero(known)], len(data))
        table = identifiers(data)
        for name in SCORES:
            table[name] = scores[name]
            p = conformal_p(scores[name], self.calibration_[name])
            table[f"{name}_p"] = np.where(known, np.nan, p)
            if name == "mahalanobis":
                p = chi2.sf(scores[name] ** 2, len(self.mean_))
                table["mahalanobis_p_chi2"] = np.where(known, np.nan, p)
        return table

    def described(self) -> dict[str, str]:
        """Column -> description of what `score` gives, for `write_table`."""
        self._check_fitted()
        of = "the z-map" + (
            ", relative to the reference's in each voxel" if self.norms_ is not None else ""
        )
        described = {
            "mahalanobis": "Mahalanobis distance of the latents from the reference's",
            "z_mean_square": f"Mean square of {of}",
            "z_quantile": f"Quantile {self.quantile:g} of the absolute values of {of}",
            "z_extent": f"Share of voxels beyond {self.threshold_:.4g} in {of}",
            "z_cluster_ml": f"Largest connected volume beyond {self.threshold_:.4g} in {of}, in ml",
        }
        ranks = f"Conformal p-value among {len(self.calibration_)} controls"
        described |= {f"{name}_p": f"{ranks} of {name}" for name in SCORES}
        degrees = f"{len(self.mean_)} degrees of freedom"
        described["mahalanobis_p_chi2"] = f"p-value of mahalanobis² by a χ² of {degrees}"
        return described

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the calibration to a `.npz` file, without pickle and without the model.

        It names nobody, but holds `seen_`: who has one of the scans can tell that it was in.
        """
        self._check_fitted()
        path = Path(path)
        if path.suffix != ".npz":
            raise InvalidParameter("path", str(path), "the path of a .npz file")
        header = {
            "format": FORMAT,
            "model": fingerprint(self.model),
            "quantile": self.quantile,
            "random_state": self.random_state,
            "threshold": self.threshold_,
            "norms": None if self.norms_ is None else self.norms_.count,
        }
        arrays: dict[str, Any] = {"header": np.array(json.dumps(header))}
        arrays |= {"mean": self.mean_, "covariance": self.covariance_}
        arrays |= {name: self.calibration_[name].to_numpy() for name in SCORES}
        arrays["seen"] = np.frombuffer(b"".join(sorted(self.seen_)), np.uint8).reshape(-1, HASH)
        if self.norms_ is not None:
            arrays |= {"norms_mean": self.norms_.mean, "norms_sd": self.norms_.sd}
        with replacing(path, overwrite=overwrite) as part:
            np.savez_compressed(part, **arrays)
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: Any) -> Deviation:
        """What `save` wrote, for the same model. Raises `DataError` for another, or a damaged file."""
        header, arrays = _read(Path(path))
        if header.get("model") != fingerprint(model):
            raise DataError(
                f"{path} was calibrated for another model, or for this one before it was trained "
                "further. Calibrate anew: Deviation(model).fit(controls)."
            )
        try:
            norms = header["norms"]
            self = cls(
                model,
                quantile=header["quantile"],
                per_voxel=norms is not None,
                random_state=header["random_state"],
            )
            self.threshold_ = header["threshold"]
            self.mean_, self.covariance_ = arrays["mean"], arrays["covariance"]
            self.calibration_ = pd.DataFrame({name: arrays[name] for name in SCORES})
            self.seen_ = frozenset(row.tobytes() for row in arrays["seen"])
            self.norms_ = norms and VoxelNorms(arrays["norms_mean"], arrays["norms_sd"], norms)
        except (KeyError, ValueError) as err:
            raise _damaged(path, err) from err
        return self

    def _refer(self, data: Scans, rows: Array) -> None:
        """Mean, covariance, norms and threshold from these scans."""
        if len(rows) < 2:
            raise DataError(
                "the reference is one scan, which has no spread. Some dozens make sense."
            )
        if self.per_voxel:
            self.norms_ = VoxelNorms.of(part.z for part in self._parts(data, rows))
        else:
            self.norms_ = None
        latents, extremes = [], []
        for part in self._parts(data, rows):
            z = part.z if self.norms_ is None else self.norms_.left_out(part.z)
            extremes += np.quantile(np.abs(z), self.quantile, axis=1).tolist()
            latents.append(part.latents)
        self.threshold_ = float(np.median(extremes))
        fitted = LedoitWolf().fit(np.concatenate(latents).astype(np.float64))
        self.mean_, self.covariance_ = fitted.location_, fitted.covariance_
        if self.covariance_.diagonal().max() < _COLLAPSED**2:
            warnings.warn(
                f"the latents of the {len(rows)} reference scans hardly vary: the posterior has "
                "collapsed, so that no distance can be measured by them. mahalanobis is missing (NaN).",
                UserWarning,
                stacklevel=3,
            )
            self.covariance_ = np.full_like(self.covariance_, np.nan)
            return
        spread = np.linalg.eigvalsh(self.covariance_)
        if spread[0] <= _SINGULAR * spread[-1]:
            raise DataError(
                f"the latents of the {len(rows)} reference scans do not vary in all of their "
                f"{len(self.mean_)} dimensions: too few scans to measure a distance by. Some dozens make sense."
            )

    def _parts(self, data: Scans, rows: Array) -> Iterator[Any]:
        return decoded(self.model, data, rows)

    def _scores(self, data: Scans, rows: Array) -> pd.DataFrame:
        mask = counted(self.model)
        found: list[tuple[float, ...]] = []
        for part in self._parts(data, rows):
            z = np.abs(part.z if self.norms_ is None else self.norms_.apply(part.z))
            distances = mahalanobis(part.latents, self.mean_, self.covariance_)
            for place, row in enumerate(part.row.tolist()):
                ml = abs(float(np.linalg.det(data.record(row).affine[:3, :3]))) / 1000
                found.append((distances[place], *self._of_voxels(z[place], mask, ml)))
        return pd.DataFrame(found, columns=list(SCORES))

    def _of_voxels(self, z: Array, mask: Array, ml: float) -> tuple[float, ...]:
        """The scores `_VOXEL` of absolute values z (M,), in voxels of that volume."""
        beyond = z > self.threshold_
        whole = np.zeros(mask.shape, dtype=bool)
        whole[mask] = beyond
        labels, groups = ndimage.label(whole)
        largest = np.bincount(labels.ravel())[1:].max() if groups else 0
        return (
            float(np.mean(np.square(z, dtype=np.float64))),
            float(np.quantile(z, self.quantile)),
            float(beyond.mean()),
            float(largest * ml),
        )

    def _check_fitted(self) -> None:
        if not hasattr(self, "calibration_"):
            raise NidlError("this Deviation is not calibrated. Call fit(controls) first.")


def mahalanobis(latents: Array, mean: Array, covariance: Array) -> Array:
    """Distances (N,) of latents (N, L) from a mean (L,), by a covariance (L, L); NaN if that is."""
    if np.isnan(covariance).any():
        return np.full(len(latents), np.nan)
    away = latents.astype(np.float64) - mean
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), away.T)  # (L, N)
    return np.asarray(np.sqrt((whitened**2).sum(axis=0)))


def conformal_p(scores: ArrayLike, controls: ArrayLike) -> Array:
    """(1 + number of controls at or above the score) / (n + 1), for scores (N,) and n controls.

    NaN for a score of NaN.
    """
    scores, ordered = np.asarray(scores, dtype=np.float64), np.sort(np.asarray(controls))
    below = np.searchsorted(ordered, scores, side="left")
    return np.where(np.isnan(scores), np.nan, (1 + len(ordered) - below) / (1 + len(ordered)))


def _halves(data: Scans, seed: int) -> tuple[Array, Array]:
    """Rows of a random half of the participants, and of the other half."""
    participant = people(data)
    names = sorted(set(participant))
    if len(names) < 4:
        raise DataError(
            f"the scans are of {len(names)} participants: too few to be halved into a reference and "
            "controls that calibrate. Some dozens make sense; or say reference=..."
        )
    chosen = np.random.default_rng(seed).permutation(len(names))[: len(names) // 2]
    first = np.isin(participant, [names[i] for i in chosen])
    return np.flatnonzero(first), np.flatnonzero(~first)


def _check_apart(reference: list[bytes], controls: list[bytes], ids: list[str]) -> None:
    """Raise `DataError` if a scan is in both: no control may have been seen before.

    Names do not tell: two data sets have a sub-01 each.
    """
    seen = set(reference)
    if both := [name for name, content in zip(ids, controls, strict=True) if content in seen]:
        raise DataError(
            f"{len(both)} of {len(controls)} controls are also in the reference: {', '.join(both[:3])}. "
            "They must be held out, or p-values are too large or too small."
        )


def _warn_of(known: list[str], every: int) -> None:
    warnings.warn(
        f"{len(known)} of {every} scans are the reference's or the controls' own ({', '.join(known[:3])}"
        f"{', ...' if len(known) > 3 else ''}). They have no p-values (NaN): these hold for scans that "
        "the calibration has not seen.",
        UserWarning,
        stacklevel=3,
    )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = dict(file)
        header = json.loads(str(arrays.pop("header")))
        if header["format"] > FORMAT:
            raise DataError(
                f"{path} was written by a later nidl-neuro. Upgrade: pip install --upgrade nidl-neuro"
            )
    except FileNotFoundError as err:
        raise DataError(f"there is no file {path}.") from err
    except DataError:
        raise
    except (OSError, KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as err:
        raise _damaged(path, err) from err
    return header, arrays


def _damaged(path: str | os.PathLike[str], err: Exception) -> DataError:
    return DataError(
        f"{path} is not a calibration that Deviation.save wrote, or is damaged ({type(err).__name__}: "
        f"{err})."
    )
