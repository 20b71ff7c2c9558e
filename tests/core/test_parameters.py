"""When two parameters are one, and what an estimator keeps of its construction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nidl_core.parameters import DetachedError, same

ARRAY = np.arange(3)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (1000, int("1000"), True),
        ("mlp", "".join(["m", "lp"]), True),
        ([1, {"a": (2, None)}], [1, {"a": (2, None)}], True),
        ([ARRAY], [ARRAY], True),
        (1, 1.0, False),
        (True, 1, False),
        ([1], (1,), False),
        ({"a": 1}, {"a": 2}, False),
        ([np.zeros(5000)], [np.zeros(5000)], False),  # objects: only when they are one
        (float("nan"), float("nan"), False),
    ],
)
def test_parameters_are_the_same_as_objects_or_as_equal_plain_data(
    a: Any, b: Any, expected: bool
) -> None:
    assert same(a, b) is expected


def test_nothing_of_the_constructors_call_is_kept_twice(tiny: Any) -> None:
    assert "_bound" not in vars(tiny(lr=0.5))


def test_there_is_no_trainer_outside_fit(tiny: Any) -> None:
    assert not hasattr(tiny(), "trainer")
    with pytest.raises(DetachedError, match="Tiny has no Trainer now"):
        tiny().trainer  # noqa: B018
