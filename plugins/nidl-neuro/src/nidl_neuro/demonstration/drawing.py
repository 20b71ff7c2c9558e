"""What the demo draws, from the model and the scans to the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nidl_neuro.conditional import along
from nidl_neuro.data import Scans
from nidl_neuro.decoding import counted, decoded
from nidl_neuro.demonstration import figures
from nidl_neuro.demonstration.finding import own_grid, true_lesion
from nidl_neuro.norms import VoxelNorms
from nidl_neuro.pictures import picture, write_picture
from nidl_neuro.traversal import write_traversal

_SHOWN = 6


def draw_reconstructions(model: Any, data: Scans, path: Path) -> Path:
    """Some scans, from the youngest to the oldest, above what the model makes of them."""
    ages = data.covariates["age"].to_numpy(float)
    rows = np.argsort(ages)[
        np.linspace(0, len(data) - 1, min(_SHOWN, len(data))).round().astype(int)
    ]
    x = data.x[rows]
    back = np.asarray(model.reconstruct(x))
    titles = [f"{data.ids[row]}, {ages[row]:.0f} years" for row in rows]
    figure = figures.reconstructions(x[:, 0], back[:, 0], counted(model), titles)
    return write_picture(path, figure, overwrite=True)


def write_ageing(model: Any, data: Scans, folder: Path) -> list[Path]:
    """The volumes at the mean latents of ages from the youngest to the oldest, as picture and image."""
    _, ageing = along(model, data, "age")
    affine = data.record(0).affine
    figure = picture(ageing, affine, mask=counted(model))
    return [
        write_picture(folder / "ageing.png", figure, overwrite=True),
        write_traversal(folder / "ageing.nii.gz", ageing, affine, overwrite=True),
    ]


def draw_lesion(model: Any, controls: Scans, lesioned: Scans, folder: Path, path: Path) -> Path:
    """The person with the lesion of median size, and two maps of them, on the scan's own grid."""
    sizes = lesioned.covariates["lesion_ml"].to_numpy(float)
    row = int(np.argsort(sizes)[len(sizes) // 2])
    norms = VoxelNorms.of(part.z for part in decoded(model, controls))
    (part,) = decoded(model, lesioned, [row])
    mask, scan = counted(model), lesioned.cohort[row].load()
    maps = {
        "|z| of the model": np.abs(part.z[0]),
        "|z|, relative to controls": np.abs(norms.apply(part.z[0])),
    }
    brain = own_grid(lesioned, row, mask, np.ones(mask.sum(), np.float32)) > 0.5
    shown = {name: own_grid(lesioned, row, mask, values) for name, values in maps.items()}
    title = f"{lesioned.ids[row]}, synthetic, with a lesion of {sizes[row]:.1f} ml"
    truth = true_lesion(folder, lesioned.ids[row])
    figure = figures.lesion(np.asarray(scan.dataobj), truth, shown, brain, title)
    return write_picture(path, figure, overwrite=True)
