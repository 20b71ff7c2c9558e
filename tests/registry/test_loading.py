"""From an entry to a class: broken, incompatible and wrong ones, threads and cycles."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nidl_core.errors import (
    BrokenComponent,
    ComponentError,
    IncompatibleComponent,
    UnknownParameter,
    WrongTypeComponent,
)
from nidl_core.registry import INTERFACE_VERSION, Registry

CLASS = "from toy_interface import Base, Other\nclass T(Base):\n    def forward(self): ...\n"
BROKEN = {
    "ImportError": ("bad:T", "import gone_missing", "No module named 'gone_missing'"),
    "raises": ("bad:T", "raise RuntimeError('no licence key')", "RuntimeError: no licence key"),
    "SyntaxError": ("bad:T", "class T(:\n", "SyntaxError: "),
    "a base exception": (
        "bad:T",
        "class Panic(BaseException): ...\nraise Panic('rust')",
        "Panic: rust",
    ),
    "SystemExit": ("bad:T", "raise SystemExit('bye')", "SystemExit: bye"),
    "warns as an error": (
        "bad:T",
        "import warnings\nwarnings.warn('old', UserWarning)",
        "UserWarning: old",
    ),
    "missing attribute": ("bad:T", "", "module 'bad' has no attribute 'T'"),
    "missing inner attribute": ("bad:T.U", CLASS, "type object 'T' has no attribute 'U'"),
    "missing module": ("nowhere:T", "", "No module named 'nowhere'"),
    "missing submodule": ("bad.inner:T", "", "'bad' is not a package"),
    "null bytes": ("bad:T", "\0", "null bytes"),
    "no attribute named": ("bad", CLASS, "bad"),
    "empty value": ("", CLASS, "Empty module name"),
    "nonsense value": ("not a target!", CLASS, "No module named 'not a target!'"),
    "relative value": (".bad:T", CLASS, "TypeError: "),
    "value with two colons": ("bad:T:U", CLASS, "bad"),
}


def counting(path: Path) -> str:
    """Source of a module that leaves an x behind each time it is executed."""
    return f"with open({str(path)!r}, 'a') as file:\n    file.write('x')\n"


@pytest.fixture
def good(site: Any) -> None:
    """A neighbour that works."""
    site.add("neighbour", {"good": "neighbour:T"}, modules={"neighbour": CLASS})


@pytest.mark.usefixtures("good")
@pytest.mark.parametrize(("target", "source", "reason"), BROKEN.values(), ids=BROKEN)
def test_broken_says_who_and_why_and_hides_no_neighbour(
    site: Any, registry: Registry[Any], target: str, source: str, reason: str
) -> None:
    site.add("nidl-bad", {"bad": target}, version="1.2.3", modules={"bad": source})
    registry.refresh()
    with pytest.raises(BrokenComponent) as caught:
        registry.get("bad")
    error = caught.value
    assert reason in error.reason
    assert (error.kind, error.name) == ("encoders", "bad")
    assert (error.distribution, error.version, error.target) == ("nidl-bad", "1.2.3", target)
    assert str(error) == (
        f"the encoder 'bad' of nidl-bad 1.2.3 cannot be loaded from {target}: {error.reason}. "
        "The fault lies in that package: upgrade, repair or uninstall it."
    )
    cause = error.__cause__
    assert cause is not None
    assert error.reason == f"{type(cause).__name__}: {cause}"
    assert registry.names() == ["bad", "good"]
    assert registry.get("good").__name__ == "T"


@pytest.mark.usefixtures("good")
def test_keyboard_interrupt_during_an_import_goes_through(site: Any, registry: Any) -> None:
    site.add("nidl-bad", {"bad": "bad:T"}, modules={"bad": "raise KeyboardInterrupt"})
    registry.refresh()
    with pytest.raises(KeyboardInterrupt):
        registry.get("bad")
    assert registry.faults == {}
    assert registry.get("good").__name__ == "T"


def test_a_failure_is_remembered_until_refresh(
    site: Any, registry: Registry[Any], tmp_path: Path
) -> None:
    count = counting(tmp_path / "count")
    site.add("nidl-bad", {"bad": "bad:T"}, modules={"bad": count + "import gone_missing"})
    registry.refresh()
    errors = []
    for _ in range(3):
        with pytest.raises(BrokenComponent) as caught:
            registry.get("bad")
        errors.append(str(caught.value))
    assert len(set(errors)) == 1
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    assert (tmp_path / "count").read_text() == "x"
    assert {i: str(f) for i, f in registry.faults.items()} == {"nidl-bad:bad": errors[0]}

    site.module("bad", CLASS)  # repaired
    with pytest.raises(BrokenComponent):
        registry.get("bad")
    registry.refresh()
    assert registry.faults == {}
    assert registry.get("bad").__name__ == "T"


@pytest.mark.parametrize(
    ("requires", "fits"),
    [
        (["nidl-core>=99"], False),
        (["nidl-core<0.0.1"], False),
        (["NIDL_core >=99"], False),
        (["nidl-core>=99 ; python_version >= '3.8'"], False),
        (["torch>=99", "nidl-core>=0"], True),
        (["nidl-core"], True),
        ([], True),
        (["nidl-core>=99 ; extra == 'dev'"], True),
        (["nidl-core>=99 ; python_version < '3'"], True),
        (["nidl-core-contrib>=99"], True),
    ],
)
def test_the_declared_range_on_the_core_is_checked_before_the_import(
    site: Any, registry: Registry[Any], requires: list[str], fits: bool
) -> None:
    marker = "import pathlib\npathlib.Path(__file__).with_name('imported').touch()\n"
    site.add("acme", {"t": "acme:T"}, requires=requires, modules={"acme": marker + CLASS})
    registry.refresh()
    assert registry.names() == ["t"]
    if fits:
        assert registry.get("t").__name__ == "T"
    else:
        with pytest.raises(
            IncompatibleComponent, match=r"^the encoder 't' of acme 1\.0 cannot be used"
        ):
            registry.get("t")
    assert (site.folder / "imported").exists() is fits


def test_incompatible_says_both_versions_and_the_pip_line(site: Any, registry: Any) -> None:
    from importlib.metadata import version

    site.add("acme", {"t": "acme:T"}, version="3.1", requires=["nidl-core>=99"])
    registry.refresh()
    with pytest.raises(IncompatibleComponent) as caught:
        registry.get("t")
    core = version("nidl-core")
    assert (caught.value.distribution, caught.value.version) == ("acme", "3.1")
    assert str(caught.value) == (
        f"the encoder 't' of acme 3.1 cannot be used: it asks for nidl-core >=99, this is nidl-core "
        f"{core}. Install releases that agree: pip install --upgrade nidl-core acme"
    )
    assert not isinstance(caught.value, WrongTypeComponent)
    assert registry.faults["acme:t"] is caught.value


@pytest.mark.usefixtures("good")
def test_an_unreadable_requirement_is_an_error_of_that_component_alone(
    site: Any, registry: Registry[Any]
) -> None:
    site.add("acme", {"t": "acme:T"}, requires=["nidl-core (>=0.1"], modules={"acme": CLASS})
    registry.refresh()
    with pytest.raises(ComponentError, match="acme"):
        registry.get("t")
    assert registry.get("good").__name__ == "T"


MISSING = "missing"


@pytest.mark.parametrize("this", [INTERFACE_VERSION, 3])
@pytest.mark.parametrize(
    ("of_class", "fits"),
    [
        (lambda this: this + 1, False),
        (lambda this: this, True),
        (lambda this: this - 1, True),
        (lambda this: this - 2, False),
        (lambda this: MISSING, None),  # counts as 1
        (lambda this: None, False),
        (lambda this: str(this), False),
        (lambda this: float(this), False),
        (lambda this: True, False),  # it equals 1, and is no version
    ],
    ids=["N+1", "N", "N-1", "N-2", "missing", "None", "str", "float", "bool"],
)
def test_the_interface_version_may_be_this_one_or_the_one_before(
    site: Any,
    registry: Registry[Any],
    monkeypatch: pytest.MonkeyPatch,
    of_class: Callable[[int], Any],
    fits: bool | None,
    this: int,
) -> None:
    monkeypatch.setattr("nidl_core.registry.INTERFACE_VERSION", this)
    version = of_class(this)
    if version is MISSING:
        version, line = 1, ""
        fits = this in (1, 2)
    else:
        line = f"    interface_version = {version!r}\n"
    source = CLASS + line
    site.add("acme", {"t": "acme:T"}, modules={"acme": source})
    registry.refresh()
    if fits:
        assert registry.get("t").__name__ == "T"
        return
    with pytest.raises(IncompatibleComponent) as caught:
        registry.get("t")
    assert str(caught.value) == (
        f"the encoder 't' of acme 1.0 cannot be used: it is made for interface version {version!r}, "
        f"this nidl-core has {this}. Install a nidl-core and a acme that agree."
    )


def test_a_component_of_the_interface_before_a_reload_is_told_so(
    site: Any, registry: Registry[Any]
) -> None:
    site.add("acme", {"t": "acme:T"}, modules={"acme": CLASS})
    import acme  # type: ignore[import-not-found]  # noqa: F401

    importlib.reload(sys.modules["toy_interface"])
    with pytest.raises(WrongTypeComponent) as caught:
        registry.get("t")
    assert str(caught.value) == (
        "the encoder 't' of acme 1.0 cannot be used: acme:T does not derive from toy_interface:Base "
        "but from another copy of it: one was reloaded. Start Python anew."
    )


@pytest.mark.parametrize(
    ("core", "asked", "fits"),
    [
        ("0.2.0.dev1", "nidl-core>=0.1,<0.3", True),
        ("0.2.0rc1", "nidl-core>=0.2.0rc1", True),
        ("0.2.0rc1", "nidl-core>=0.2", False),
        ("0.2.0rc1", "nidl-core<0.2", False),
        ("0.1.5.post1", "nidl-core>=0.1,<0.2", True),
    ],
)
def test_a_prerelease_of_the_core_is_compared_as_pip_compares_it(
    site: Any, registry: Any, monkeypatch: pytest.MonkeyPatch, core: str, asked: str, fits: bool
) -> None:
    site.add("acme", {"t": "acme:T"}, requires=[asked], modules={"acme": CLASS})
    monkeypatch.setattr(importlib.metadata, "version", lambda name: core)
    registry.refresh()
    if fits:
        assert registry.get("t").__name__ == "T"
    else:
        with pytest.raises(IncompatibleComponent, match=rf"this is nidl-core {core}\."):
            registry.get("t")


def test_an_interface_that_cannot_be_imported_is_no_fault_of_the_plugin(site: Any) -> None:
    registry: Registry[Any] = Registry("encoders", "gone_interface:Base")
    site.add("acme", {"t": "acme:T"}, modules={"acme": "class T: pass"})
    with pytest.raises(IncompatibleComponent) as caught:
        registry.get("t")
    assert str(caught.value) == (
        "the encoder 't' of acme 1.0 cannot be used: gone_interface:Base, which it has to derive from, "
        "cannot be imported (No module named 'gone_interface'). Install what the core needs: pip "
        "install nidl-core"
    )
    assert isinstance(caught.value.__cause__, ImportError)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("T = T()", "acme:T is not a class but 'T'."),
        ("def T(): ...", "acme:T is not a class but 'function'."),
        ("T = None", "acme:T is not a class but 'NoneType'."),
        ("import json as T", "acme:T is not a class but 'module'."),
        ("T = dict[str, int]", "acme:T is not a class but 'GenericAlias'."),
        ("class T: pass", "acme:T does not derive from toy_interface:Base."),
        ("class T(Other): pass", "acme:T does not derive from toy_interface:Base."),
        ("class T(Base): pass", "acme:T is abstract: it lacks forward."),
        ("T = Base", "acme:T is abstract: it lacks forward."),
    ],
)
def test_what_is_no_concrete_class_of_the_interface_is_refused(
    site: Any, registry: Registry[Any], source: str, reason: str
) -> None:
    site.add("acme", {"t": "acme:T"}, modules={"acme": f"{CLASS}\n{source}"})
    registry.refresh()
    with pytest.raises(WrongTypeComponent) as caught:
        registry.get("t")
    assert isinstance(caught.value, TypeError)
    assert str(caught.value) == f"the encoder 't' of acme 1.0 cannot be used: {reason}"
    assert registry.faults["acme:t"] is caught.value


def test_build_makes_an_instance_and_checks_its_parameters(site: Any, registry: Any) -> None:
    source = CLASS + "    def __init__(self, width=1, depth=2): self.width = width\n"
    site.add("acme", {"t": "acme:T"}, modules={"acme": source})
    registry.refresh()
    assert registry.build("t", width=3).width == 3
    with pytest.raises(UnknownParameter) as caught:
        registry.build("t", widht=3)
    assert str(caught.value) == (
        "encoder 't' has no parameter 'widht'. Did you mean 'width'? It takes: width, depth."
    )


def together(count: int, ask: Callable[[], Any]) -> list[Any]:
    """What `count` threads get that start at the same moment; an error counts as an answer."""
    barrier, answers = threading.Barrier(count), []

    def one() -> None:
        barrier.wait()
        try:
            answers.append(ask())
        except Exception as err:
            answers.append(err)

    threads = [threading.Thread(target=one, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads), "deadlock"
    return answers


@pytest.mark.parametrize("round_", range(10))
def test_sixteen_threads_get_one_class_from_one_import(
    site: Any, registry: Registry[Any], tmp_path: Path, round_: int
) -> None:
    count = counting(tmp_path / "count") + "import time\ntime.sleep(0.02)\n"
    name = f"acme{round_}"
    site.add(name, {"t": f"{name}:T"}, modules={name: count + CLASS})
    answers = together(16, lambda: registry.get("t"))
    assert (tmp_path / "count").read_text() == "x"
    assert len(answers) == 16
    assert set(answers) == {sys.modules[name].T}


@pytest.mark.parametrize(
    "error", [KeyError("/gone"), RuntimeError("dictionary changed size during iteration")], ids=repr
)
def test_a_scan_survives_what_other_threads_do_to_pythons_import_caches(
    site: Any, registry: Registry[Any], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """`importlib.invalidate_caches` lists a dict that imports fill, and deletes from it: it may raise."""
    errors, invalidate_caches = [error], importlib.invalidate_caches

    def fragile() -> None:
        if errors:
            raise errors.pop()
        invalidate_caches()

    site.add("acme", {"t": "acme:T"}, modules={"acme": CLASS})
    monkeypatch.setattr(importlib, "invalidate_caches", fragile)
    assert registry.get("t").__name__ == "T"


def test_sixteen_threads_get_the_same_error(site: Any, registry: Registry[Any]) -> None:
    source = "import time\ntime.sleep(0.02)\nimport gone_missing"
    site.add("acme", {"t": "acme:T"}, modules={"acme": source})
    answers = together(16, lambda: registry.get("t"))
    assert len(answers) == 16
    assert {type(a) for a in answers} == {BrokenComponent}
    assert len({str(a) for a in answers}) == 1


def test_a_get_waits_for_an_import_under_way_without_a_deadlock(site: Any, registry: Any) -> None:
    ask = "import nidl_core\nnidl_core.available('encoders')\n"
    site.add(
        "acme", {"t": "acme:T"}, modules={"acme": f"{ask}import time\ntime.sleep(0.1)\n{CLASS}"}
    )

    def ask_or_import() -> Any:
        import acme

        registry.get("t")
        return acme.T

    answers = together(4, ask_or_import)
    assert set(answers) == {sys.modules["acme"].T}


def test_plugins_may_ask_for_each_other_while_they_are_imported(site: Any) -> None:
    """In a process of its own: the plugins ask a registry that they import."""
    site.module("toy_interface", "class Base: pass")
    site.module(
        "toy_registry",
        "from nidl_core.registry import Registry\ntoys = Registry('encoders', 'toy_interface:Base')",
    )
    ask = """
import nidl_core, toy_interface
from toy_registry import toys
assert nidl_core.available("encoders") == ["a", "b"]
class {name}(toy_interface.Base): pass
other = toys.get("{other}")
"""
    site.add("nidl-a", {"a": "plugin_a:A"}, modules={"plugin_a": ask.format(name="A", other="b")})
    site.add("nidl-b", {"b": "plugin_b:B"}, modules={"plugin_b": ask.format(name="B", other="a")})
    code = """
    import faulthandler, json
    faulthandler.dump_traceback_later(10, exit=True)
    from toy_registry import toys
    first, second = toys.get("a"), toys.get("b")
    print(json.dumps([first.__name__, second.__name__]))
    """
    assert site.ask(code) == ["A", "B"]


def test_two_threads_that_import_each_others_plugins_do_not_deadlock(site: Any) -> None:
    site.module("toy_interface", "class Base: pass")
    site.module(
        "toy_registry",
        "from nidl_core.registry import Registry\ntoys = Registry('encoders', 'toy_interface:Base')",
    )
    ask = "import time, toy_interface\nfrom toy_registry import toys\nclass T(toy_interface.Base): pass\ntime.sleep(0.1)\ntoys.get('{other}')\n"
    site.add("nidl-a", {"a": "plugin_a:T"}, modules={"plugin_a": ask.format(other="b")})
    site.add("nidl-b", {"b": "plugin_b:T"}, modules={"plugin_b": ask.format(other="a")})
    code = """
    import faulthandler, json, threading
    faulthandler.dump_traceback_later(10, exit=True)
    from toy_registry import toys
    threads = [threading.Thread(target=toys.get, args=(n,)) for n in "ab"]
    for t in threads: t.start()
    for t in threads: t.join()
    toys.refresh()
    print(json.dumps([toys.get(n).__module__ for n in "ab"]))
    """
    assert site.ask(code) == ["plugin_a", "plugin_b"]
