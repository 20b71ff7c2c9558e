"""Batch norm in MONAI's networks: torch's own, but for a single value a channel."""

import pytest
import torch
from torch import nn

from nidl_monai import MonaiEncoder
from nidl_monai._fitting import BatchNorm, take_batches_of_one

PAIRS = [(nn.BatchNorm1d, (6,)), (nn.BatchNorm2d, (6, 3, 4)), (nn.BatchNorm3d, (6, 3, 4, 2))]


def swapped(norm):
    net = nn.Sequential(norm)
    take_batches_of_one(net)
    return net[0]


@pytest.mark.parametrize(("norm", "shape"), PAIRS)
def test_it_is_torchs_where_there_is_a_variance(norm, shape):
    torch.manual_seed(0)
    theirs, ours = norm(6, momentum=0.3, eps=0.1), swapped(norm(6, momentum=0.3, eps=0.1))
    assert type(ours) is BatchNorm
    for _ in range(2):
        x = torch.randn(5, *shape)
        assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.running_var, theirs.running_var)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("norm", [norm for norm, _ in PAIRS])
def test_a_single_value_is_normalised_by_the_running_statistics(norm):
    ours = swapped(norm(6))
    axes = (1,) * PAIRS[[n for n, _ in PAIRS].index(norm)][1][1:].__len__()
    ours.running_mean.fill_(2.0)
    ours.running_var.fill_(9.0)
    x = torch.randn(1, 6, *axes)
    torch.testing.assert_close(ours(x), (x - 2) / (9 + ours.eps) ** 0.5)
    assert ours.running_mean.eq(2).all()


def test_without_running_statistics_a_single_value_stays_an_error():
    ours = swapped(nn.BatchNorm1d(6, track_running_stats=False))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        ours(torch.randn(1, 6))


def test_a_densenet_trains_on_a_batch_of_one_with_one_voxel_left():
    encoder = MonaiEncoder((1, 29, 30), model_args={"block_config": [1, 1, 1, 1]})
    encoder(torch.randn(1, 1, 29, 30)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
