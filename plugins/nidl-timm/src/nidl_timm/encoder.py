"""Any of timm's image models as an encoder: x (N, C, H, W) -> h (N, F).

Shapes: N batch, C channels, H and W the size of the image, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn import SyncBatchNorm
from torch.nn import functional as F

from nidl_core.errors import InvalidParameter
from nidl_core.interfaces import Encoder
from nidl_timm._building import (
    MissingWeights,
    checked_args,
    checked_model,
    checked_shape,
    models,
)
from nidl_timm._fitting import features, fitted, forget

__all__ = ["MissingWeights", "TimmEncoder"]


class TimmEncoder(Encoder):
    """One of timm's image models without its classifier: x (N, C, H, W) -> h (N, F).

    Any number of channels, and any size that the model can be made for. An image that it cannot take
    as it is, or not all of it (most transformers take multiples of their patch, some take squares, and
    many networks leave out the rows and columns behind the last multiple of their stride), is padded
    with zeros at the bottom and the right. What fits is not padded, and then h is what timm gives.

    Weights are drawn as timm draws them: the same seed gives the same ones. `net` is timm's model.
    Parameters that the features do not depend on are frozen, so that distributed training finds none
    unused. Batch norm that sees one value a channel (one image, one pixel), which torch refuses to
    train on, uses its running statistics.

    Parameters
    ----------
    input_shape: (C, H, W) of one sample.
    model: one of `TimmEncoder.choices()["model"]`, `nidl show timm` lists them; for certain weights
        with their tag, "resnet18.a1_in1k".
    pretrained: whether to begin with timm's trained weights. They are downloaded once, to Hugging
        Face's cache. Where C is not 3, timm adapts the first layer: the filters are repeated over
        the channels and rescaled. Give images the mean and spread that these weights know, which
        `encoder.net.pretrained_cfg` tells.
    pool: whether h is pooled over positions, as timm does in front of the classifier; if not, it is
        the whole last map, flattened, which keeps where things are.
    model_args: further arguments of timm's model, by name: `{"drop_path_rate": 0.1}`, or for small
        images `{"patch_size": 4}`. None is none. What follows from the shape, or reads weights, is
        not among them.

    Raises `ShapeError` for another rank or a size that cannot be made to fit, `InvalidParameter` for
    unknown models and impossible values, `MissingWeights` where trained weights cannot be had.

    Example
    -------
    >>> import torch
    >>> encoder = TimmEncoder((1, 91, 109), model="test_vit")  # patches of 16: padded to 96x112
    >>> encoder(torch.zeros(2, 1, 91, 109)).shape, encoder.out_features
    (torch.Size([2, 64]), 64)
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        model: str = "resnet18",
        *,
        pretrained: bool = False,
        pool: bool = True,
        model_args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        shape = checked_shape(input_shape)
        for parameter, value in (("pretrained", pretrained), ("pool", pool)):
            if not isinstance(value, bool):
                raise InvalidParameter(parameter, value, "True or False")
        name = checked_model(model, pretrained)
        args = checked_args(name, shape[0], model_args)
        self.pool = pool
        found = fitted(name, args, shape, pretrained=pretrained, pool=pool)
        self.net, self.out_features = found.net, found.width
        self.padding = found.padding  # left, right, top, bottom
        self._lone_norms, self._caching = found.lone_norms, found.caching

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to h (N, F), with the dtype and device of x."""
        if any(self.padding):
            x = F.pad(x, self.padding)
        alone = self._lone_norms if self.training and len(x) == 1 else ()
        norms = [norm for norm in map(self.net.get_submodule, alone) if norm.training]
        norms = [norm for norm in norms if not isinstance(norm, SyncBatchNorm)]  # sees other images
        try:
            for norm in norms:
                norm.training = False
            return features(self.net, x, self.pool)
        finally:
            for norm in norms:
                norm.training = True
            forget(self.net, self._caching)

    @classmethod
    def choices(cls) -> dict[str, list[str]]:
        """The names that `model` takes."""
        return {"model": models()}

    @classmethod
    def conformance(cls) -> list[dict[str, Any]]:
        """Cases for nidl_core.testing: the default, and a small model of each way to see an image."""
        return [
            # Batch norm that ends in one pixel; tables and volumes are refused.
            {"params": {}},
            # Tokens, as many as it was made for; pooled, and all of them.
            {"params": {"model": "test_vit"}, "shapes": [(3, 17, 30), (1, 64, 48)]},
            {"params": {"model": "test_vit", "pool": False}, "shapes": [(2, 33, 32)]},
            # Patches without overlap, which leave out what is less than one.
            {"params": {"model": "test_convnext"}, "shapes": [(3, 17, 30), (1, 64, 48)]},
            {"params": {"model": "test_efficientnet"}, "shapes": [(3, 17, 30), (1, 64, 48)]},
        ]
