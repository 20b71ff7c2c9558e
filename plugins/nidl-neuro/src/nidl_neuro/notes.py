"""What a person should know of scans that were prepared: what changed their voxels, and what does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from nidl_neuro.grid import by
from nidl_neuro.record import Record

_APART = 0.5  # voxels by which the grids of aligned scans may differ


def notes(records: Sequence[Record]) -> Iterator[str]:
    """A line each of what was resampled, what a crop took off the masks, and grids that lie apart."""
    yield from _resampled(records)
    yield from _cut(records)
    yield from _apart(records)


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


def _apart(records: Sequence[Record]) -> Iterator[str]:
    affines = np.stack([record.affine for record in records])  # (N, 4, 4)
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(records[0].shape) - 1)
    places = corners @ affines[:, :3, :3].transpose(0, 2, 1) + affines[:, None, :3, 3]  # (N, 8, 3)
    largest = float(np.linalg.norm(places - places[0], axis=2).max())
    voxel = float(np.linalg.norm(affines[0, :3, :3], axis=0).min())
    if largest > _APART * voxel:
        yield (
            f"the prepared grids of the scans lie up to {largest:.1f} mm apart: one voxel is not one place "
            "in all of them. Register them to a common space first."
        )
