"""Brain volumes as small pictures: three orthogonal slices side by side, in mm, left on the left.

S = (X, Y, Z) is the prepared grid, RAS+.
"""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Pixels = NDArray[np.uint8]
_GAP = 4  # black pixels between slices
_OUTLINE = (120, 205, 255)
# zero is black; what is more than expected goes through red to yellow, what is less through blue to cyan
_WARM = ((0, 0, 0), (190, 32, 18), (255, 190, 60), (255, 245, 215))
_COLD = ((0, 0, 0), (24, 74, 200), (80, 190, 255), (225, 248, 255))


@dataclass(frozen=True)
class Window:
    """Where to cut and how large to draw: voxel indices, mm a voxel, pixels of the longest axis."""

    centre: tuple[int, int, int]
    voxel_size: tuple[float, float, float]
    pixels: int = 150

    def shape(self, axes: tuple[int, int], size: tuple[int, ...]) -> tuple[int, int]:
        """Height and width in pixels of a slice along two axes of a grid of that size."""
        extent = [n * mm for n, mm in zip(size, self.voxel_size, strict=True)]
        scale = self.pixels / max(extent)
        across, up = axes
        return max(1, round(extent[up] * scale)), max(1, round(extent[across] * scale))


def window(mask: NDArray[np.bool_] | None, voxel_size: Any, shape: Any, pixels: int) -> Window:
    """Slices through the middle of the mask, or of the grid where there is none."""
    if mask is None:
        centre = tuple(n // 2 for n in shape)
    else:
        centre = tuple(round(float(places.mean())) for places in np.nonzero(mask))
    first, second, third = centre
    sizes = tuple(float(mm) for mm in voxel_size)
    return Window((first, second, third), (sizes[0], sizes[1], sizes[2]), pixels)


def grey(
    volume: NDArray[Any],
    where: Window,
    limits: tuple[float, float],
    outline: NDArray[np.bool_] | None = None,
) -> Pixels:
    """A volume (*S) between two limits, from black to white: pixels (H, W, 3)."""
    low, high = limits
    scaled = np.clip((volume - low) / max(high - low, 1e-12), 0, 1)
    pictures = []
    for view, edges in zip(_views(scaled, where), _views(outline, where), strict=True):
        picture = np.repeat((np.clip(view, 0, 1) * 255).round().astype(np.uint8)[..., None], 3, 2)
        if edges is not None:
            inside = edges > 0.5
            picture[inside & ~ndimage.binary_erosion(inside, border_value=0)] = _OUTLINE
        pictures.append(picture)
    return _side_by_side(pictures)


def signed(volume: NDArray[Any], where: Window, limit: float) -> Pixels:
    """A map (*S) around 0, black at 0 and brightest at plus and minus `limit`: pixels (H, W, 3)."""
    scaled = np.clip(volume / max(limit, 1e-12), -1, 1)
    return _side_by_side([coloured(view) for view in _views(scaled, where) if view is not None])


def coloured(values: NDArray[Any]) -> Pixels:
    """Values from -1 to 1 as colours: (*values.shape, 3)."""
    places = np.linspace(0, 1, len(_WARM))
    channels = [
        np.where(
            values >= 0,
            np.interp(np.abs(values), places, [colour[i] for colour in _WARM]),
            np.interp(np.abs(values), places, [colour[i] for colour in _COLD]),
        )
        for i in range(3)
    ]
    return np.asarray(np.stack(channels, axis=-1).round(), dtype=np.uint8)


def png(pixels: Pixels) -> str:
    """Pixels (H, W, 3) as a data URI of a PNG, of one channel where all three are equal."""
    is_grey = bool((pixels == pixels[..., :1]).all())
    rows = pixels[..., :1] if is_grey else pixels
    height, width = rows.shape[:2]
    # filter 2 (up): each row as the difference to the one above
    shifted = np.concatenate([np.zeros_like(rows[:1]), rows[:-1]])
    raw = (rows - shifted).reshape(height, -1)
    body = np.concatenate([np.full((height, 1), 2, np.uint8), raw], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if is_grey else 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(body, 9)), (b"IEND", b"")
    file = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)
    return f"data:image/png;base64,{base64.b64encode(file).decode()}"


def _views(volume: NDArray[Any] | None, where: Window) -> list[Any]:
    """The sagittal, coronal and axial slice, up being up, interpolated to square pixels."""
    if volume is None:
        return [None] * 3
    volume = np.asarray(volume, dtype=np.float32)
    views = []
    for axis in range(3):
        across, up = (other for other in range(3) if other != axis)
        flat = volume.take(where.centre[axis], axis=axis).T[::-1]  # (up, across)
        target = where.shape((across, up), volume.shape)
        zoom = [n / m for n, m in zip(target, flat.shape, strict=True)]
        views.append(ndimage.zoom(flat, zoom, order=1, mode="nearest", grid_mode=True))
    return views


def _side_by_side(pictures: list[Pixels]) -> Pixels:
    height = max(len(picture) for picture in pictures)
    parts = []
    for picture in pictures:
        above = (height - len(picture)) // 2
        pad = ((above, height - len(picture) - above), (_GAP // 2, _GAP // 2), (0, 0))
        parts.append(np.pad(picture, pad))
    return np.concatenate(parts, axis=1)


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
