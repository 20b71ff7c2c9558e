"""Hook plugins: loaded one by one, a faulty one is left out and hides no other."""

from __future__ import annotations

from typing import Any

import pytest

GOOD = """
from nidl_core.hooks import hookimpl

@hookimpl
def nidl_as_dataset(data):
    return f"{__name__}:{data}" if data in ("mine", __name__) else None
"""
STATE = """
    import json, logging, sys
    class Kept(logging.Handler):
        texts = []
        def emit(self, record): self.texts.append(record.getMessage())
    logging.getLogger("nidl_core").addHandler(Kept())
    from nidl_core import hooks
    try:
        names = [plugin.id for plugin in hooks.plugins()]
        answer, error = hooks.first("nidl_as_dataset", data="mine"), None
    except Exception as err:
        names, answer, error = [], None, f"{type(err).__name__}: {err}"
    print(json.dumps(dict(names=names, answer=answer, error=error, faults=hooks.faults,
                          logged=Kept.texts, modules=sorted(sys.modules))))
"""
MARK = "from nidl_core.hooks import hookimpl\n"
FAULTY = {
    "raises": ("raise RuntimeError('no licence key')", "RuntimeError: no licence key"),
    "exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "panics": ("class Panic(BaseException): ...\nraise Panic('rust')", "Panic: rust"),
    "needs what is missing": ("import gone_missing", "No module named 'gone_missing'"),
    "asks for an argument that is not there": (
        f"{MARK}@hookimpl(tryfirst=True)\ndef nidl_as_dataset(data):\n    return 'half registered'\n"
        "@hookimpl\ndef nidl_fit_callbacks(estimator, surplus): ...\n",
        "surplus",
    ),
    "misspells a hook": (
        f"{MARK}@hookimpl\ndef nidl_as_dataset(data): return 'half registered'\n"
        "@hookimpl\ndef nidl_fit_calbacks(estimator): ...\n",
        "it implements nidl_fit_calbacks, which is no hook. Did you mean nidl_fit_callbacks?",
    ),
    "implements another's hook": (
        f"{MARK}@hookimpl\ndef pytest_configure(config): ...\n",
        "it implements pytest_configure, which is no hook. Hooks: nidl_as_dataset, ",
    ),
    "forgets the mark": (
        "def nidl_as_dataset(data): return 'unmarked'",
        "its nidl_as_dataset lacks the mark @nidl_core.hooks.hookimpl",
    ),
    "implements nothing": ("", "it implements no hook. Hooks: nidl_as_dataset, "),
    "wraps": (
        f"{MARK}@hookimpl(wrapper=True)\ndef nidl_as_dataset(data): return (yield)\n",
        "its nidl_as_dataset is a hook wrapper. nidl calls each implementation by itself",
    ),
    "wraps in the old way": (
        f"{MARK}@hookimpl(hookwrapper=True)\ndef nidl_as_dataset(data): yield\n",
        "its nidl_as_dataset is a hook wrapper. nidl calls each implementation by itself",
    ),
}


def add(site: Any, name: str, source: str, **more: Any) -> None:
    site.add(f"nidl-{name}", {name: name}, group="nidl.hooks", modules={name: source}, **more)


def test_the_core_answers_through_an_entry_point_like_any_plugin(site: Any) -> None:
    state = site.ask(STATE)
    assert state["names"] == ["nidl-core:core"]
    assert state["faults"] == {}
    assert state["logged"] == []


def test_installed_hook_plugins_are_asked_by_id_and_before_the_core(site: Any) -> None:
    for name in ("zeta", "good", "alpha"):
        add(site, name, GOOD)
    state = site.ask(STATE)
    expected = ["nidl-alpha:alpha", "nidl-good:good", "nidl-zeta:zeta", "nidl-core:core"]
    assert state["names"] == expected
    assert state["answer"] == "alpha:mine"


@pytest.mark.parametrize(("source", "reason"), FAULTY.values(), ids=FAULTY)
def test_a_faulty_plugin_is_left_out_whole_and_hides_no_other(
    site: Any, source: str, reason: str
) -> None:
    add(site, "bad", source)
    add(site, "good", GOOD)
    state = site.ask(STATE)
    assert state["error"] is None
    assert list(state["faults"]) == ["nidl-bad:bad"]
    assert reason in state["faults"]["nidl-bad:bad"]
    assert state["names"] == ["nidl-good:good", "nidl-core:core"]
    assert state["answer"] == "good:mine"
    assert state["logged"] == [
        f"hook plugin nidl-bad:bad is left out: {state['faults']['nidl-bad:bad']}"
    ]


@pytest.mark.parametrize(("source", "reason"), FAULTY.values(), ids=FAULTY)
def test_strict_raises_what_the_faulty_plugin_raised(site: Any, source: str, reason: str) -> None:
    add(site, "bad", source)
    result = site.run("from nidl_core import hooks; hooks.plugins()", NIDL_STRICT_PLUGINS="1")
    assert result.returncode != 0
    assert reason in result.stderr or result.returncode == 3


def test_a_class_is_no_plugin(site: Any) -> None:
    source = (
        f"{MARK}class Mine:\n    @hookimpl\n    def nidl_as_dataset(self, data): return 'mine'\n"
    )
    points = {"class": "bad:Mine", "instance": "bad:mine"}
    modules = {"bad": f"{source}mine = Mine()"}
    site.add("nidl-bad", points, group="nidl.hooks", modules=modules)
    state = site.ask(STATE)
    assert state["faults"] == {
        "nidl-bad:class": "it is a class. Name an instance of it, or a module"
    }
    assert state["answer"] == "mine"


def test_keyboard_interrupt_in_a_hook_plugin_goes_through(site: Any) -> None:
    add(site, "bad", "raise KeyboardInterrupt")
    result = site.run("from nidl_core import hooks; hooks.plugins()")
    assert result.returncode != 0
    assert "KeyboardInterrupt" in result.stderr


@pytest.mark.parametrize(
    "disabled",
    [
        "nidl-bad",
        "nidl-bad:bad",
        "nidl-x, nidl-bad ,",
        "nidl-bad:bad,y",
        "NIDL_Bad",
        "nidl.bad : BAD",
    ],
)
def test_a_disabled_plugin_is_not_imported(site: Any, disabled: str) -> None:
    add(site, "bad", "raise RuntimeError('imported')")
    add(site, "good", GOOD)
    state = site.ask(STATE, NIDL_DISABLE_PLUGINS=disabled, NIDL_STRICT_PLUGINS="1")
    assert state["error"] is None
    assert state["faults"] == {}
    assert "bad" not in state["modules"]
    assert state["answer"] == "good:mine"


def test_a_star_disables_every_plugin_but_the_core(site: Any) -> None:
    add(site, "bad", "raise RuntimeError('imported')")
    add(site, "good", GOOD)
    state = site.ask(STATE, NIDL_DISABLE_PLUGINS="*")
    assert state["names"] == ["nidl-core:core"]
    assert not {"bad", "good"} & set(state["modules"])


def test_one_entry_point_of_several_can_be_disabled(site: Any) -> None:
    points = {"one": "one", "two": "two"}
    site.add("nidl-many", points, group="nidl.hooks", modules={"one": GOOD, "two": GOOD})
    state = site.ask(STATE, NIDL_DISABLE_PLUGINS="nidl-many:one")
    assert state["names"] == ["nidl-many:two", "nidl-core:core"]


def test_a_plugin_that_asks_for_another_core_is_not_imported(site: Any) -> None:
    add(site, "bad", "raise RuntimeError('imported')", requires=["nidl-core>=99"])
    state = site.ask(STATE)
    assert "it asks for nidl-core >=99" in state["faults"]["nidl-bad:bad"]
    assert "bad" not in state["modules"]


def test_a_module_under_two_names_answers_once(site: Any) -> None:
    source = f"{MARK}@hookimpl\ndef nidl_model_facts(estimator): return {{'a': 1}}"
    site.add("nidl-many", {"one": "one", "two": "one"}, group="nidl.hooks", modules={"one": source})
    code = """
    import json
    from nidl_core import hooks
    print(json.dumps([[p.id for p in hooks.plugins()], hooks.faults]))
    """
    assert site.ask(code) == [["nidl-many:one", "nidl-core:core"], {}]


def test_an_event_during_the_loading_asks_what_is_loaded_by_then(site: Any) -> None:
    ask = "from nidl_core import hooks\nseen = [p.id for p in hooks.plugins()]\n"
    add(site, "a_good", GOOD)
    add(site, "b_asks", ask + GOOD)
    add(site, "c_good", GOOD)
    code = """
    import json
    from nidl_core import hooks
    names = [p.id for p in hooks.plugins()]
    import b_asks
    print(json.dumps([names, b_asks.seen]))
    """
    a, b, c = (f"nidl-{name}:{name}" for name in ("a_good", "b_asks", "c_good"))
    assert site.ask(code) == [[a, b, c, "nidl-core:core"], [a]]


def test_eight_threads_at_the_first_event_see_the_same_plugins(site: Any) -> None:
    count = "import time\nwith open(__file__ + '.count', 'a') as file: file.write('x')\ntime.sleep(0.05)\n"
    add(site, "slow", count + GOOD)
    add(site, "good", GOOD)
    code = """
    import faulthandler, json, threading
    faulthandler.dump_traceback_later(10, exit=True)
    from nidl_core import hooks
    seen, barrier = [], threading.Barrier(8)
    def ask():
        barrier.wait()
        seen.append([p.id for p in hooks.plugins()])
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print(json.dumps([len(seen), sorted({tuple(s) for s in seen})]))
    """
    expected = ["nidl-good:good", "nidl-slow:slow", "nidl-core:core"]
    assert site.ask(code) == [8, [expected]]
    assert (site.folder / "slow.py.count").read_text() == "x"


def test_loading_the_hooks_imports_nothing_heavy(site: Any) -> None:
    state = site.ask(STATE)
    assert state["error"] is None
    modules = {name.partition(".")[0] for name in state["modules"]}
    assert not modules & {"torch", "lightning", "sklearn", "numpy"}
