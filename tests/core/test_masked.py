"""Data that say how they were made, and which positions count: what the core does with both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Subset

from nidl_core import hooks
from nidl_core.data import ArrayDataset, as_data
from nidl_core.errors import DataError, DataTypeError


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
        return ArrayDataset(x, spec=spec or {"voxel": 2.0}, notes=[f"{data}: 100% resampled"])


class Fitted:
    """A model that was fitted on scans of 3 mm."""

    input_shape_: tuple[int, ...]

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


ROWS = np.arange(12, dtype=np.float32).reshape(6, 1, 2)


def rows(spec: Any = "how", mask: Any = (True, False)) -> ArrayDataset:
    return ArrayDataset(ROWS, spec=spec, mask=torch.tensor(mask))


@pytest.mark.parametrize(
    "part",
    [
        lambda x: x.take([4, 1]),
        lambda x: x[[4, 1]],
        lambda x: x[np.array([4, 1]), ...],
        lambda x: Subset(x, [4, 1]),
        lambda x: Subset(Subset(x, [5, 4, 1]), [1, 2]),
        lambda x: DataLoader(Subset(x, [4, 1]), batch_size=2),
        lambda x: ConcatDataset([Subset(x, [4]), Subset(x, [1])]),
    ],
    ids=["take", "list", "scikit-learn", "Subset", "nested", "DataLoader", "ConcatDataset"],
)
def test_some_of_the_rows_keep_spec_and_mask(part: Any) -> None:
    data = as_data(part(rows()), object())
    assert data.spec == "how"
    assert data.mask is not None
    assert data.mask.tolist() == [True, False]
    got = torch.cat(list(data.in_order(2, 0)))
    assert got.tolist() == ROWS[[4, 1]].tolist()


def test_the_letters_of_a_path_are_told_for_what_they_are() -> None:
    with pytest.raises(DataTypeError, match=r"got the letters of a path, \['s', 'c'\]"):
        as_data(["s", "c"], object())


def test_a_slice_of_rows_and_a_row() -> None:
    assert rows()[4:].shape == (2, 1, 2)
    assert rows()[-1].tolist() == ROWS[5].tolist()


def test_sets_that_were_made_in_several_ways_are_not_put_together() -> None:
    for other in (rows("otherwise"), rows(mask=(True, True)), ROWS):
        with pytest.raises(DataError, match="were made in different ways, or have different masks"):
            as_data(ConcatDataset([rows(), other]), object())


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: Subset(x, [0]), lambda x: DataLoader(x)])
def test_rows_that_were_made_otherwise_than_those_of_the_fit_are_refused(wrap: Any) -> None:
    with pytest.raises(
        DataError, match=r"than those of the fit \(they differ in voxel\)\. Make them by"
    ):
        as_data(wrap(rows({"voxel": 2.0})), Fitted())
    assert as_data(wrap(rows({"voxel": 3.0})), Fitted()).spec == {"voxel": 3.0}
    assert (
        as_data(wrap(rows(None)), Fitted()).spec is None
    )  # plain arrays are for the user to judge


def test_a_model_whose_reader_is_not_installed_says_what_to_install() -> None:
    fitted = Fitted()
    fitted.data_spec_ = {"made_by": "nidl-unheard-of"}
    fitted.input_shape_ = (1, 2)
    with pytest.raises(DataTypeError, match=r"not installed: pip install nidl-unheard-of$"):
        as_data("scan.unheard", fitted)
    with pytest.raises(DataTypeError, match=r"not installed: pip install nidl-unheard-of$"):
        as_data(object(), fitted)
