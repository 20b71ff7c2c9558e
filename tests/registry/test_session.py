"""Components of this process only: register, unregister, temporary."""

from __future__ import annotations

import abc
import sys
import threading
import types
from typing import Any

import pytest

from nidl_core.errors import SpecError, UnknownComponent, WrongTypeComponent
from nidl_core.registry import Registry


class Base(abc.ABC):
    @abc.abstractmethod
    def forward(self) -> None: ...


class Mine(Base):
    def __init__(self, width: int = 1) -> None:
        self.width = width

    def forward(self) -> None: ...


class Other(Mine):
    pass


@pytest.fixture
def mine(site: Any, monkeypatch: pytest.MonkeyPatch) -> Registry[Any]:
    """A registry whose interface is the `Base` of this module, whatever its name is in sys.modules."""
    interface = types.ModuleType("session_interface")
    interface.Base = Base  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "session_interface", interface)
    return Registry("encoders", "session_interface:Base")


def test_register_lists_gets_and_builds(mine: Registry[Any]) -> None:
    assert mine.register("mine", Mine) is Mine
    assert mine.names() == ["mine"]
    assert mine.get("mine") is Mine
    assert mine.get("session:mine") is Mine
    assert mine.build("mine", width=3).width == 3
    entry = mine.entry("mine")
    assert (entry.id, entry.distribution, entry.version) == ("session:mine", "session", "")
    assert entry.target == f"{__name__}:Mine"
    assert mine.entry_of(Mine) == entry
    assert mine.entry_of(Other) is None


def test_register_survives_a_refresh(mine: Registry[Any]) -> None:
    mine.register("mine", Mine)
    mine.refresh()
    assert mine.get("mine") is Mine


def test_unregister_takes_it_back_once(mine: Registry[Any]) -> None:
    mine.register("mine", Mine)
    mine.unregister("mine")
    assert mine.names() == []
    for act in (mine.unregister, mine.get):
        with pytest.raises(UnknownComponent, match="no encoder named 'mine'"):
            act("mine")


def test_temporary_ends_with_its_block_also_when_that_raises(mine: Registry[Any]) -> None:
    with mine.temporary("mine", Mine) as cls:
        assert cls is mine.get("mine") is Mine
    assert mine.names() == []
    with pytest.raises(ZeroDivisionError), mine.temporary("mine", Mine):
        _ = 1 / 0
    assert mine.names() == []


@pytest.mark.parametrize("again", [Mine, Other], ids=["the same class", "another class"])
def test_a_name_of_this_session_is_taken(mine: Registry[Any], again: type) -> None:
    mine.register("mine", Mine)
    with pytest.raises(SpecError) as caught:
        mine.register("mine", again)
    assert str(caught.value) == (
        "the encoder name 'mine' is taken by 'session:mine'. Choose another name."
    )
    with pytest.raises(SpecError), mine.temporary("mine", again):
        pass
    assert mine.get("mine") is Mine  # a temporary that was refused takes nothing away


def test_the_name_of_an_installed_component_is_taken(site: Any, mine: Registry[Any]) -> None:
    site.add("acme", {"mine": "acme:M"})
    mine.refresh()
    with pytest.raises(SpecError, match="the encoder name 'mine' is taken by 'acme:mine'"):
        mine.register("mine", Mine)
    assert [e.id for e in mine.entries()] == ["acme:mine"]


@pytest.mark.parametrize("name", ["", "acme:mine", "session:mine", ":", None, 3, Mine])
def test_only_a_plain_name_can_be_registered(mine: Registry[Any], name: Any) -> None:
    with pytest.raises(SpecError) as caught:
        mine.register(name, Mine)
    assert str(caught.value) == f"a component's name is a non-empty str without ':', got {name!r}."
    assert mine.entries() == []


@pytest.mark.parametrize(
    ("thing", "reason"),
    [
        (Mine(), "is not a class but 'Mine'"),
        (Base, "is abstract: it lacks forward"),
        (dict, "builtins:dict does not derive from session_interface:Base"),
        (len, "is not a class but 'builtin_function_or_method'"),
        (None, "is not a class but 'NoneType'"),
    ],
)
def test_register_checks_the_class(mine: Registry[Any], thing: Any, reason: str) -> None:
    with pytest.raises(WrongTypeComponent, match=reason):
        mine.register("mine", thing)
    assert mine.entries() == []


def test_a_class_registered_later_does_not_inherit_its_predecessors_class(
    mine: Registry[Any],
) -> None:
    with mine.temporary("mine", Mine):
        mine.get("mine")
    with mine.temporary("mine", Other):
        assert mine.get("mine") is Other


def test_register_while_another_thread_lists(mine: Registry[Any]) -> None:
    stop, errors = threading.Event(), []

    def list_on() -> None:
        while not stop.is_set():
            try:
                mine.names()
            except RuntimeError as err:  # dictionary changed size during iteration
                errors.append(err)

    thread = threading.Thread(target=list_on)
    thread.start()
    for i in range(300):
        mine.register(f"mine{i}", Mine)
    stop.set()
    thread.join()
    assert errors == []


def test_a_spawned_process_does_not_see_it_and_its_error_says_why(site: Any) -> None:
    site.module("toy_interface", "class Base: pass")
    site.module(
        "spawning",
        """
        import multiprocessing
        from nidl_core.registry import Registry
        from toy_interface import Base

        toys = Registry("encoders", "toy_interface:Base")

        def ask(name):
            try:
                return toys.get(name).__name__
            except LookupError as err:
                return str(err)

        class Mine(Base): pass
        """,
    )
    site.add("acme", {"installed": "spawning:Mine"})
    code = """
    import json, multiprocessing
    import spawning
    spawning.toys.register("mine", spawning.Mine)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(json.dumps([spawning.ask("mine"), *pool.map(spawning.ask, ["mine", "installed"])]))
    """
    here, mine, installed = site.ask(code)
    assert here == "Mine"
    assert installed == "Mine"
    assert mine == (
        "no encoder named 'mine'. Installed: installed. This is a worker process: a name given by "
        "register() exists only in the process that registered it. Hand in the class itself, or "
        "install it as a plugin."
    )
