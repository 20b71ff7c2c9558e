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
    import json, logging
    class Kept(logging.Handler):
        texts = []
        def emit(self, record): self.texts.append(record.getMessage())
    logging.getLogger("nidl_core").addHandler(Kept())
    import sys
    from nidl_core import hooks
    try:
        plugins = hooks.manager()
        names = sorted(name for name, plugin in plugins.list_name_plugin() if plugin is not None)
        core = plugins.get_plugin("nidl-core:core")  # needs numpy to answer
        answer = plugins.subset_hook_caller("nidl_as_dataset", [core])(data="mine")
        error = None
    except Exception as err:
        names, answer, error = [], None, f"{type(err).__name__}: {err}"
    print(json.dumps(dict(names=names, answer=answer, error=error, faults=hooks.faults,
                          logged=Kept.texts, modules=sorted(sys.modules))))
"""
FAULTY = {
    "raises": "raise RuntimeError('no licence key')",
    "exits": "raise SystemExit(3)",
    "needs what is missing": "import gone_missing",
    "asks for an argument that is not there": (
        "from nidl_core.hooks import hookimpl\n"
        "@hookimpl(tryfirst=True)\ndef nidl_as_dataset(data):\n    return 'half registered'\n"
        "@hookimpl\ndef nidl_fit_callbacks(estimator, surplus): ...\n"
    ),
    "misspells a hook": "from nidl_core.hooks import hookimpl\n@hookimpl\ndef nidl_fit_calbacks(estimator): ...\n",
}


def add(site: Any, name: str, source: str, **more: Any) -> None:
    site.add(f"nidl-{name}", {name: name}, group="nidl.hooks", modules={name: source}, **more)


def test_the_core_answers_through_an_entry_point_like_any_plugin(site: Any) -> None:
    state = site.ask(STATE)
    assert state["names"] == ["nidl-core:core"]
    assert state["faults"] == {}
    assert state["logged"] == []


def test_an_installed_hook_plugin_is_asked_before_the_core(site: Any) -> None:
    add(site, "good", GOOD)
    state = site.ask(STATE)
    assert state["names"] == ["nidl-core:core", "nidl-good:good"]
    assert state["answer"] == "good:mine"
    code = "import json; from nidl_core import hooks; print(json.dumps(hooks.manager().hook.nidl_as_dataset(data='mine')))"
    assert site.ask(code) == "good:mine"


@pytest.mark.parametrize("source", FAULTY.values(), ids=FAULTY)
def test_a_faulty_plugin_is_left_out_whole_and_hides_no_other(site: Any, source: str) -> None:
    add(site, "bad", source)
    add(site, "good", GOOD)
    state = site.ask(STATE)
    assert state["error"] is None
    assert list(state["faults"]) == ["nidl-bad:bad"]
    assert state["names"] == ["nidl-core:core", "nidl-good:good"]
    assert state["answer"] == "good:mine"
    assert state["logged"] == [
        f"hook plugin nidl-bad:bad is left out: {state['faults']['nidl-bad:bad']}"
    ]


@pytest.mark.parametrize("source", FAULTY.values(), ids=FAULTY)
def test_strict_raises_what_the_faulty_plugin_raised(site: Any, source: str) -> None:
    add(site, "bad", source)
    result = site.run("from nidl_core import hooks; hooks.manager()", NIDL_STRICT_PLUGINS="1")
    assert result.returncode != 0
    assert result.stderr or result.returncode == 3


def test_a_misspelt_hook_is_named_with_its_plugin(site: Any) -> None:
    add(site, "bad", FAULTY["misspells a hook"])
    state = site.ask(STATE)
    told = str(state["error"]) + str(state["faults"])
    assert "nidl_fit_calbacks" in told
    assert "bad" in told


def test_keyboard_interrupt_in_a_hook_plugin_goes_through(site: Any) -> None:
    add(site, "bad", "raise KeyboardInterrupt")
    result = site.run("from nidl_core import hooks; hooks.manager()")
    assert result.returncode != 0
    assert "KeyboardInterrupt" in result.stderr


@pytest.mark.parametrize(
    "disabled", ["nidl-bad", "nidl-bad:bad", "nidl-x, nidl-bad ,", "nidl-bad:bad,y"]
)
def test_a_disabled_plugin_is_not_imported(site: Any, disabled: str) -> None:
    add(site, "bad", "raise RuntimeError('imported')")
    add(site, "good", GOOD)
    state = site.ask(STATE, NIDL_DISABLE_PLUGINS=disabled, NIDL_STRICT_PLUGINS="1")
    assert state["error"] is None
    assert state["faults"] == {}
    assert "bad" not in state["modules"]
    assert state["answer"] == "good:mine"


def test_one_entry_point_of_several_can_be_disabled(site: Any) -> None:
    points = {"one": "one", "two": "two"}
    site.add("nidl-many", points, group="nidl.hooks", modules={"one": GOOD, "two": GOOD})
    state = site.ask(STATE, NIDL_DISABLE_PLUGINS="nidl-many:one")
    assert state["names"] == ["nidl-core:core", "nidl-many:two"]


def test_a_plugin_that_asks_for_another_core_is_not_imported(site: Any) -> None:
    add(site, "bad", "raise RuntimeError('imported')", requires=["nidl-core>=99"])
    state = site.ask(STATE)
    assert "nidl-core" in state["faults"]["nidl-bad:bad"]
    assert "RuntimeError" not in state["faults"]["nidl-bad:bad"]


def test_the_first_answer_counts_and_none_asks_the_next(site: Any) -> None:
    none = GOOD.replace(
        'return f"{__name__}:{data}" if data in ("mine", __name__) else None', "return None"
    )
    add(site, "a_none", none)
    add(site, "good", GOOD)
    add(site, "z_none", none)
    assert site.ask(STATE)["answer"] == "good:mine"


def test_an_implementation_may_take_fewer_arguments(site: Any) -> None:
    add(
        site,
        "fewer",
        "from nidl_core.hooks import hookimpl\n@hookimpl\ndef nidl_as_dataset(): return 'asked'",
    )
    assert site.ask(STATE)["answer"] == "asked"


def test_a_module_under_two_names_answers_once(site: Any) -> None:
    source = "from nidl_core.hooks import hookimpl\n@hookimpl\ndef nidl_model_facts(estimator): return {'a': 1}"
    site.add("nidl-many", {"one": "one", "two": "one"}, group="nidl.hooks", modules={"one": source})
    code = """
    import json
    from nidl_core import hooks
    facts = hooks.manager().subset_hook_caller("nidl_model_facts", [hooks.manager().get_plugin("nidl-core:core")])
    print(json.dumps(facts(estimator=None)))
    """
    assert site.ask(code) == [{"a": 1}]


def test_loading_the_hooks_imports_nothing_heavy(site: Any) -> None:
    state = site.ask(STATE)
    assert state["error"] is None
    modules = {name.partition(".")[0] for name in state["modules"]}
    assert not modules & {"torch", "lightning", "sklearn", "numpy"}
