"""The public names of nidl_core, each fetched from its module at first use."""

from __future__ import annotations

import importlib
import types

import pytest

import nidl_core


@pytest.mark.parametrize("name", sorted(nidl_core.__all__))
def test_every_public_name_resolves_to_the_object_of_its_module(name: str) -> None:
    if name == "__version__":
        assert nidl_core.__version__ == importlib.import_module("importlib.metadata").version(
            "nidl-core"
        )
        return
    home = importlib.import_module(f"nidl_core.{nidl_core._HOME[name]}")
    assert getattr(nidl_core, name) is getattr(home, name)


def test_star_import_gives_the_public_names() -> None:
    space: dict[str, object] = {}
    exec("from nidl_core import *", space)
    assert set(nidl_core.__all__) <= set(space)
    assert not any(isinstance(space[name], types.ModuleType) for name in nidl_core.__all__)
