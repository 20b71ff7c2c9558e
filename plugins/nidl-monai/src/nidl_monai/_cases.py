"""What the conformance kit is to check: each family of networks, as small as it comes.

Shapes: C channels, S spatial, P raw numbers per value.
"""

from __future__ import annotations

from typing import Any

Shapes = list[tuple[int, ...]]

_IMAGE: Shapes = [(3, 17, 30)]  # (C, *S), or for decoders (P*C, *S)
_VOLUME: Shapes = [(2, 13, 10, 15)]


def _case(model: str, model_args: dict[str, Any], shapes: Shapes, **params: Any) -> dict[str, Any]:
    return {"params": {"model": model, "model_args": model_args, **params}, "shapes": shapes}


_VIT = {"hidden_size": 24, "num_layers": 1, "num_heads": 2, "mlp_dim": 8}
_SWINVIT = {"embed_dim": 6, "depths": [2, 1, 1, 1], "num_heads": [1, 2, 3, 3]}
_LEVELS = {"channels": [4, 8], "norm_num_groups": 2}

ENCODERS = [
    _case("densenet121", {"block_config": [1, 1], "init_features": 8}, _IMAGE + _VOLUME),
    _case("resnet10", {"widen_factor": 0.125}, _IMAGE + _VOLUME),
    _case("resnet10", {"widen_factor": 0.125}, _VOLUME, pool=False),
    _case("seresnet50", {"layers": [1, 1, 1, 1]}, _IMAGE),
    _case("efficientnet-b0", {}, [(1, 33, 32)]),
    _case("vit", _VIT, _IMAGE + _VOLUME),
    _case("swinvit", _SWINVIT, _IMAGE),
    _case("segresnet", {"init_filters": 4, "blocks_down": [1, 1]}, _VOLUME),
    _case("autoencoder", {"channels": [4, 8], "num_res_units": 1}, _VOLUME),
    _case("autoencoderkl", _LEVELS, _VOLUME),
    _case("regressor", {"channels": [4, 8]}, _VOLUME),
]

DECODERS = [
    _case("generator", {"channels": [8, 4]}, _IMAGE + _VOLUME),
    _case("varautoencoder", {"channels": [4, 8], "num_res_units": 1}, _IMAGE + _VOLUME),
    _case("autoencoderkl", {**_LEVELS, "in_channels": 8}, _IMAGE + _VOLUME),
]
