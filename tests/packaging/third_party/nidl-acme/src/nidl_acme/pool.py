"""The plainest encoder of images."""

from __future__ import annotations

from torch import Tensor, nn

from nidl_core import Encoder
from nidl_core.errors import ShapeError


class Pool2d(Encoder):
    """Average x (N, C, H, W) on a 4x4 grid, then one linear layer to h (N, width)."""

    def __init__(self, input_shape: tuple[int, ...], width: int = 16) -> None:
        super().__init__()
        if len(input_shape) != 3:
            raise ShapeError(f"pool2d takes x of shape (N, C, H, W), got (N, *{input_shape}).")
        self.out_features = width
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),  # (N, C, 4, 4)
            nn.Flatten(),
            nn.Linear(16 * input_shape[0], width),
        )

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.layers(x)
        return h
