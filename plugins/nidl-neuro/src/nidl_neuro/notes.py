"""What a person should know of scans that were prepared: what changed their voxels, and what does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nidl_neuro.grid import by
from nidl_neuro.record import Record

_APART = 0.5  # voxels by which the grids of aligned scans may differ


def notes(records: Sequence[Record], affine: Any = None) -> Iterator[str]:
    """A line each of what was resampled, what a crop took off the masks, and grids that lie apart.

    `affine` (4, 4) is that of the grid of the scans that a model was fitted on.
    """
    yield from _resampled(records)
    yield from _cut(records)
    yield from _apart(records, affine)


def copies(names: Sequence[str], contents: Sequence[str]) -> Iterator[str]:
    """A line if scans have the content of another one, with the names of up to three pairs."""
    first: dict[str, str] = {}
    pairs = [
        f"{name} that of {first[content]}"
        for name, content in zip(names, contents, strict=True)
        if first.setdefault(content, name) != name
    ]
    if pairs:
        have = "has" if len(pairs) == 1 else "have"
        more = f" and {len(pairs) - 3} more" if pairs[3:] else ""
        yield (
            f"{len(pairs)} of {len(names)} scans {have} the content of another one: "
            f"{', '.join(pairs[:3])}{more}. Find out whose it is, or leave the copies out."
        )


def _resampled(records: Sequence[Record]) -> Iterator[str]:
    changed = [record for record in records if record.resampled_shape is not None]
    if not changed:
        return
    sizes = sorted({by(record.own_grid.canonical()[0].voxel_size) for record in changed})
    told = sizes[0] if len(sizes) == 1 else f"{len(sizes)} voxel sizes, such as {sizes[0]}"
    first = changed[0]
    yield (
        f"{len(changed)} of {len(records)} scans were resampled from {told} to "
        f"{by(first.whole_grid.voxel_size)} mm ({first.interpolation})"
    )


def _cut(records: Sequence[Record]) -> Iterator[str]:
    cut = [record for record in records if record.mask_cut]
    if cut:
        most = max(cut, key=lambda record: record.mask_cut)
        yield (
            f"the crop to {by(most.shape)} takes voxels off the masks of {len(cut)} of {len(records)} "
            f"scans, {most.mask_cut} of {most.name}"
        )


def _apart(records: Sequence[Record], affine: Any) -> Iterator[str]:
    first = records[0].affine if affine is None else np.array(affine, dtype=np.float64)
    affines = np.stack([first, *(record.affine for record in records)])  # (1 + N, 4, 4)
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(records[0].shape) - 1)
    places = corners @ affines[:, :3, :3].transpose(0, 2, 1) + affines[:, None, :3, 3]  # (N, 8, 3)
    distances = np.linalg.norm(places[1:] - places[0], axis=2).max(axis=1)  # (N,)
    far = distances > _APART * float(np.linalg.norm(first[:3, :3], axis=0).min())
    if far.any():
        worst = records[int(distances.argmax())].name
        whose = (
            "that of the first" if affine is None else "that of the scans that the model has learnt"
        )
        yield (
            f"the prepared grids of {far.sum()} of {len(records)} scans do not lie on {whose}, up to "
            f"{distances.max():.1f} mm apart ({worst}): one voxel is not one place in all of them. Register "
            "them to a common space first."
        )
