"""Data that say how they were made, and which positions count: what the core does with both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nidl_core import hooks
from nidl_core.data import ArrayDataset, as_data
from nidl_core.errors import DataError


def test_rows_of_an_array_data_set_come_a_batch_at_a_time() -> None:
    x = np.arange(12.0, dtype=np.float32).reshape(6, 1, 2)
    mask = torch.tensor([True, False])
    data = as_data(ArrayDataset(x, spec={"voxel": 2.0}, mask=mask), object(), reset=False)
    assert data.spec == {"voxel": 2.0}
    assert data.mask is mask
    assert [len(batch) for batch in data.in_order(4, 0)] == [4, 2]


@pytest.mark.parametrize("mask", [torch.tensor([False, False]), torch.tensor([0, 1])])
def test_a_mask_of_nothing_or_of_numbers_is_refused(mask: torch.Tensor) -> None:
    with pytest.raises(DataError, match="the mask of the data must be bool, True somewhere"):
        as_data(ArrayDataset(np.ones((3, 1, 2)), mask=mask), object())


class Reads:
    """A plugin that reads what is called "scans"."""

    def __init__(self) -> None:
        self.specs: list[Any] = []

    @hooks.hookimpl
    def nidl_as_dataset(self, data: Any, spec: Any) -> Any:
        self.specs.append(spec)
        x = np.ones((3, 1, 2), dtype=np.float32)
        return ArrayDataset(x, spec={"voxel": 2.0}, notes=[f"{data}: 100% resampled"])


class Fitted:
    """A model that was fitted on scans of 3 mm."""

    def __init__(self) -> None:
        self.data_spec_ = {"voxel": 3.0}


def test_what_a_plugin_notes_of_the_data_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with hooks.temporary(Reads()):
        as_data("scans", Fitted())
    assert caplog.messages == ["scans: 100% resampled"]


def test_further_data_are_read_by_what_the_first_said_of_themselves() -> None:
    plugin = Reads()
    with hooks.temporary(plugin):
        as_data("scans", Fitted(), reset=False)
    assert plugin.specs == [{"voxel": 3.0}]
