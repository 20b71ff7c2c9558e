"""Encoders and decoders for nidl: `mlp` for any shape, `cnn2d` for images, `cnn3d` for volumes."""

from nidl_backbones.cnn import CNN2dDecoder, CNN2dEncoder, CNN3dDecoder, CNN3dEncoder
from nidl_backbones.mlp import MLPDecoder, MLPEncoder

__all__ = [
    "CNN2dDecoder",
    "CNN2dEncoder",
    "CNN3dDecoder",
    "CNN3dEncoder",
    "MLPDecoder",
    "MLPEncoder",
]
