"""Lesions that are found, where the truth is known: of each voxel, and of each person.

All is measured on the scans' own grids, in the voxels of the brain. M are those voxels of a scan.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from nidl_neuro.data import Scans
from nidl_neuro.decoding import counted, decoded
from nidl_neuro.demonstration.people import lesion_path
from nidl_neuro.deviation import SCORES, Deviation
from nidl_neuro.norms import VoxelNorms

Array = NDArray[Any]
DETECTORS = {
    "|z| of the model": "z",
    "|z|, relative to controls in each voxel": "relative",
    "|difference from the controls' mean| / sd, no model": "controls",
    "darkness of the prepared scan": "darkness",
}


def found_voxels(model: Any, controls: Scans, lesioned: Scans, folder: Path) -> pd.DataFrame:
    """How well each way to find lesions does, a row each: means over people.

    Columns: `auc`, `precision` (average precision: the area under the curve of precision and recall)
    and `dice` at the threshold that is best for all people together, which only the truth tells.
    `chance` is the average precision of a guess: the lesion's share of the brain.
    """
    norms = VoxelNorms.of(part.z for part in decoded(model, controls))
    usual = VoxelNorms.of(part.x for part in decoded(model, controls))
    values: dict[str, list[Array]] = {name: [] for name in DETECTORS}
    truth: list[Array] = []
    mask = counted(model)
    for part in decoded(model, lesioned):
        maps = {
            "z": np.abs(part.z),
            "relative": np.abs(norms.apply(part.z)),
            "controls": np.abs(usual.apply(part.x)),
            "darkness": -part.x,
        }
        for place, row in enumerate(part.row.tolist()):
            inside = own_grid(lesioned, row, mask, np.ones(mask.sum(), np.float32)) > 0.5
            truth.append(true_lesion(folder, lesioned.ids[row])[inside])
            for name, key in DETECTORS.items():
                values[name].append(own_grid(lesioned, row, mask, maps[key][place])[inside])
    seen = [i for i, own in enumerate(truth) if own.any()]  # an irregular one may lie at the edge
    rows = []
    for name, maps_of in values.items():
        pairs = [(truth[i], maps_of[i]) for i in seen]
        rows.append(
            {
                "how": name,
                "auc": np.mean([roc_auc_score(*pair) for pair in pairs]),
                "precision": np.mean([average_precision_score(*pair) for pair in pairs]),
                "dice": _best_dice(*(np.concatenate(all) for all in zip(*pairs, strict=True))),
                "chance": np.mean([own.mean() for own, _ in pairs]),
            }
        )
    return pd.DataFrame(rows).set_index("how")


def true_lesion(folder: Path, id: str) -> NDArray[np.bool_]:
    """The lesion of a person, on the scan's own grid; `folder` is that of the lesioned."""
    image = nibabel.loadsave.load(lesion_path(folder, id))
    return np.asarray(image.get_fdata() > 0)  # type: ignore[attr-defined]


def own_grid(data: Scans, row: int, mask: Array, values: Array) -> Array:
    """Values (M,) of the model's voxels on the scan's own grid, 0 elsewhere."""
    whole = np.zeros(mask.shape, dtype=np.float32)
    whole[mask] = values
    return np.asarray(data.image(row, whole, scanner_units=False).dataobj)


def found_people(deviation: Deviation, lesioned: Scans) -> pd.DataFrame:
    """How well each deviation score tells the lesioned from the controls that it was calibrated on.

    Columns: `auc`, and `flagged`, the number of people with p <= 0.05.
    """
    scores, usual = deviation.score(lesioned), deviation.calibration_
    rows = []
    for name in SCORES:
        both = np.concatenate([usual[name], scores[name]])
        label = np.arange(len(both)) >= len(usual)
        auc = np.nan if np.isnan(both).any() else roc_auc_score(label, both)
        flagged = int((scores[f"{name}_p"] <= 0.05).sum())
        rows.append({"score": name, "auc": auc, "flagged": flagged})
    return pd.DataFrame(rows).set_index("score")


def _best_dice(truth: Array, values: Array) -> float:
    """The largest Dice coefficient of `values > threshold` with the truth, over all thresholds."""
    precision, recall, _ = precision_recall_curve(truth, values)
    both = precision + recall
    return float(np.max(2 * precision * recall / np.where(both > 0, both, 1)))
