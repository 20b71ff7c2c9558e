"""Plugins that use nidl while they are imported."""

from __future__ import annotations

from typing import Any

import pytest

REGISTRY = """
import faulthandler
from nidl_core.registry import Registry

toys = Registry("encoders", "toy_interface:Base")
faulthandler.dump_traceback_later(10, exit=True)
"""
CLASS = "import nidl_core\nfrom toy_interface import Base\nfrom toy_registry import toys\nclass T(Base): pass\n"
OTHER = "from toy_interface import Base\nclass T(Base): pass\n"
GET = """
import json
from toy_registry import toys
answers = []
for name in ("mine", "other"):
    try:
        answers.append(toys.get(name).__module__)
    except LookupError as err:
        answers.append(f"{type(err).__name__}: {err}")
print(json.dumps([answers, list(toys.faults), toys.names()]))
"""


@pytest.fixture
def mine(site: Any) -> Any:
    """Installs a plugin whose module goes on like this, beside another plugin; what `GET` answers."""

    def ask(source: str) -> Any:
        site.module("toy_interface", "class Base: pass")
        site.module("toy_registry", REGISTRY)
        site.add("nidl-mine", {"mine": "mine_module:T"}, modules={"mine_module": CLASS + source})
        site.add("nidl-other", {"other": "other_module:T"}, modules={"other_module": OTHER})
        return site.ask(GET)

    return ask


def test_one_that_builds_another_plugins_component(mine: Any) -> None:
    answers, faults, _ = mine("other = toys.build('other')")
    assert answers == ["mine_module", "other_module"]
    assert faults == []


def test_one_that_calls_build_with_a_name_that_there_is_not(mine: Any) -> None:
    answers, faults, _ = mine("nidl_core.build('nope')")
    assert answers[0].startswith(
        "BrokenComponent: the encoder 'mine' of nidl-mine 1.0 cannot be loaded from mine_module:T: "
        "UnknownComponent: no estimator named 'nope'."
    )
    assert answers[1] == "other_module"
    assert faults == ["nidl-mine:mine"]


def test_one_that_asks_for_itself_once_its_class_is_there(mine: Any) -> None:
    assert mine("assert toys.get('mine') is T")[0] == ["mine_module", "other_module"]


def test_one_that_asks_for_itself_too_early_and_goes_on_is_well_in_the_end(mine: Any) -> None:
    early = "del T\ntry:\n    toys.get('mine')\nexcept LookupError: pass\nclass T(Base): pass"
    answers, faults, _ = mine(early)
    assert answers == ["mine_module", "other_module"]
    assert faults == []  # the early question failed, and that is forgotten


def test_one_that_asks_for_itself_too_early_is_broken_alone(mine: Any) -> None:
    answers, faults, _ = mine("del T\ntoys.get('mine')")
    assert "BrokenComponent" in answers[0]
    assert "has no attribute 'T'" in answers[0]
    assert answers[1] == "other_module"
    assert faults == ["nidl-mine:mine"]


def test_one_that_registers_more_for_this_session(mine: Any) -> None:
    answers, _, names = mine("toys.register('more', T)")
    assert answers == ["mine_module", "other_module"]
    assert names == ["mine", "more", "other"]


def test_one_that_registers_its_own_name_again_is_told_that_it_is_taken(mine: Any) -> None:
    answers, _, names = mine("toys.register('mine', T)")
    assert "SpecError: the encoder name 'mine' is taken by 'nidl-mine:mine'" in answers[0]
    assert names == ["mine", "other"]


def test_one_that_refreshes(mine: Any) -> None:
    assert mine("toys.refresh()")[0] == ["mine_module", "other_module"]


def test_one_that_changes_what_is_installed(mine: Any) -> None:
    source = """
import importlib.metadata, pathlib
info = pathlib.Path(__file__).parent / "nidl_late-1.0.dist-info"
info.mkdir()
(info / "METADATA").write_text("Metadata-Version: 2.1\\nName: nidl-late\\nVersion: 1.0\\n")
(info / "entry_points.txt").write_text("[nidl.encoders]\\nlate = other_module:T\\n")
assert toys.get("late").__module__ == "other_module"
"""
    answers, _, names = mine(source)
    assert answers == ["mine_module", "other_module"]
    assert names == ["late", "mine", "other"]
