"""A small model of most of timm's families, at an odd size: built, whole and finite."""

import pytest
import torch

from nidl_timm import TimmEncoder

MODELS = [
    "test_byobnet",
    "cs3darknet_focus_s",
    "cspnext_tiny",
    "test_convnext",
    "cpubone_nano",
    "deit_tiny_patch16_224",
    "dla46x_c",
    "dpn48b",
    "edgenext_xx_small",
    "efficientformerv2_s0",
    "test_efficientnet",
    "efficientvim_m1",
    "efficientvit_b0",
    "efficientvit_m0",
    "vit_tiny_patch16_dinov3_qkvb",
    "fasternet_t0",
    "fastvit_t8",
    "ghostnet_050",
    "hardcorenas_b",
    "hgnetv2_b0",
    "iformer_t",
    "lcnetv2_small",
    "levit_128s",
    "test_mambaout",
    "test_coatnet",
    "lcnet_035",
    "mobilevit_xxs",
    "test_nfnet",
    "pit_ti_224",
    "pvt_v2_b0",
    "regnetx_002",
    "repghostnet_050",
    "resnest14d",
    "test_resnet",
    "resnetv2_18",
    "rexnet_100",
    "legacy_seresnet18",
    "shvit_s1",
    "skresnet18",
    "starnet_s050",
    "swiftformer_xs",
    "visformer_tiny",
    "test_vit",
    "vit_tiny_r_s16_p8_224",
    "test_vit_relpos",
    "ese_vovnet19b_slim_dw",
]


@pytest.mark.parametrize("model", MODELS)
def test_odd_sizes_are_taken_by(model):
    torch.manual_seed(0)
    shape = (2, 45, 29)
    encoder = TimmEncoder(shape, model)
    for training, n in [(True, 1), (False, 2)]:  # batch norm of one image is the hardest
        encoder.train(training)
        h = encoder(torch.randn(n, *shape))
        assert h.shape == (n, encoder.out_features)
        assert h.isfinite().all()
