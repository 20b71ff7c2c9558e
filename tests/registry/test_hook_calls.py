"""Asking hook plugins: in which order, and what becomes of one that raises."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from nidl_core import hooks
from nidl_core.errors import DataError, HookError
from nidl_core.hooks import collect, first, hookimpl, register, temporary, unregister


@pytest.fixture(autouse=True)
def no_others(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither installed plugins nor faults of other tests."""
    monkeypatch.setattr(hooks, "_installed", [])
    monkeypatch.setattr(hooks, "_session", [])
    monkeypatch.setattr(hooks, "faults", {})
    monkeypatch.delenv("NIDL_STRICT_PLUGINS", raising=False)
    return


class Says:
    """A plugin with one answer, which may be an exception."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def reply(self) -> Any:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    @hookimpl
    def nidl_as_dataset(self) -> Any:
        return self.reply()

    @hookimpl
    def nidl_model_facts(self) -> Any:
        return self.reply()


class Eager(Says):
    nidl_as_dataset = hookimpl(lambda self: self.reply(), tryfirst=True)
    nidl_model_facts = hookimpl(lambda self: self.reply(), tryfirst=True)


class Late(Says):
    nidl_as_dataset = hookimpl(lambda self: self.reply(), trylast=True)
    nidl_model_facts = hookimpl(lambda self: self.reply(), trylast=True)


def install(monkeypatch: pytest.MonkeyPatch, **plugins: object) -> None:
    """As if these were loaded, by distribution."""
    found = [hooks._examined(thing, f"{name}:it") for name, thing in plugins.items()]
    monkeypatch.setattr(hooks, "_installed", found)


def facts() -> list[Any]:
    return [answer for _, answer in collect("nidl_model_facts", estimator=None)]


# Order --------------------------------------------------------------------------------------------


def test_the_users_own_come_before_installed_ones_and_these_before_the_core(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The core's answer is asked for last, whatever it or strangers say of tryfirst and trylast.
    install(monkeypatch, acme=Says(2), zeta=Late(3), **{"nidl-core": Eager(4)})
    with temporary(Late(1)):
        assert facts() == [1, 2, 3, 4]
        assert first("nidl_as_dataset", data=None) == 1
    assert first("nidl_as_dataset", data=None) == 2


def test_tryfirst_and_trylast_count_among_installed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, a=Late(3), b=Says(2), c=Eager(1), d=Late(4))
    assert facts() == [1, 2, 3, 4]


def test_of_the_users_own_the_latest_is_asked_first() -> None:
    for answer in (3, 2, 1):
        register(Says(answer))
    assert facts() == [1, 2, 3]


def test_each_answer_comes_with_its_plugin_and_none_is_no_answer() -> None:
    register(Says({"a": 1}), "mine")
    register(Says(None), "silent")
    assert collect("nidl_model_facts", estimator=None) == [("session:mine", {"a": 1})]
    assert first("nidl_as_dataset", data=None) == {"a": 1}


def test_nobody_has_an_answer() -> None:
    register(Says(None))
    assert first("nidl_as_dataset", data=None) is None
    assert collect("nidl_model_facts", estimator=None) == []


def test_an_implementation_may_take_fewer_arguments() -> None:
    class Takes:
        @hookimpl
        def nidl_fit_callbacks(self, estimator: Any) -> Any:
            return [estimator]

    with temporary(Takes()), temporary(Says(None)):
        assert collect("nidl_fit_callbacks", estimator=7) == [("session:Takes", [7])]


def test_an_implementation_may_bear_another_name() -> None:
    class Named:
        @hookimpl(specname="nidl_as_dataset")
        def anything(self, data: Any) -> Any:
            return data

    with temporary(Named()):
        assert first("nidl_as_dataset", data=7) == 7


# One that raises ----------------------------------------------------------------------------------

RAISED = [RuntimeError("no key"), SystemExit(3), KeyError("x"), DataError("not mine")]


@pytest.mark.parametrize("error", RAISED, ids=repr)
def test_one_that_raises_does_not_hurt_the_others_of_a_collecting_hook(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    register(Says(2))
    register(Says(error), "bad")
    register(Says(1))
    assert facts() == [1, 2]
    said = f"{type(error).__name__}: {error}"
    assert hooks.faults == {"session:bad": f"nidl_model_facts: {said}"}
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
        (
            logging.WARNING,
            f"hook plugin session:bad failed in nidl_model_facts and is passed over: {said}",
        )
    ]


@pytest.mark.parametrize("error", RAISED[:3], ids=repr)
def test_after_one_that_raises_the_next_is_asked(error: BaseException) -> None:
    register(Says(1))
    register(Says(error), "bad")
    assert first("nidl_as_dataset", data=None) == 1
    assert hooks.faults == {"session:bad": f"nidl_as_dataset: {type(error).__name__}: {error}"}


def test_an_error_of_nidls_says_mine_and_bad_and_asks_nobody_else() -> None:
    register(Says(1))
    register(Says(DataError("half a file")))
    with pytest.raises(DataError, match="half a file"):
        first("nidl_as_dataset", data=None)
    assert hooks.faults == {}


def test_if_nobody_answers_the_error_names_those_that_failed() -> None:
    register(Says(ValueError("no header")), "one")
    register(Says(None))
    register(Says(KeyError("x")), "two")
    with pytest.raises(HookError) as caught:
        first("nidl_as_dataset", data=None)
    assert str(caught.value) == (
        "plugins failed in nidl_as_dataset: session:two (KeyError: 'x'); "
        "session:one (ValueError: no header)"
    )
    assert list(caught.value.reasons) == ["session:two", "session:one"]
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("ask", [first, collect])
def test_keyboard_interrupt_goes_through(ask: Any) -> None:
    register(Says(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        ask("nidl_as_dataset", data=None)
    assert hooks.faults == {}


@pytest.mark.parametrize("ask", [first, collect])
@pytest.mark.parametrize("error", RAISED, ids=repr)
def test_strict_raises_at_once(
    ask: Any, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIDL_STRICT_PLUGINS", "1")
    register(Says(1))
    register(Says(error))
    with pytest.raises(type(error)) as caught:
        ask("nidl_as_dataset", data=None)
    assert caught.value is error


# The user's own -----------------------------------------------------------------------------------


class Misspelt(Says):
    @hookimpl
    def nidl_fit_calbacks(self, estimator: Any) -> Any: ...


class Surplus(Says):
    @hookimpl
    def nidl_fit_callbacks(self, estimator: Any, surplus: Any) -> Any: ...


class Wraps(Says):
    @hookimpl(wrapper=True)
    def nidl_fit_callbacks(self) -> Any:
        return (yield)


@pytest.mark.parametrize(
    ("thing", "reason"),
    [
        (
            Misspelt(1),
            "it implements nidl_fit_calbacks, which is no hook. Did you mean nidl_fit_callbacks?",
        ),
        (Surplus(1), "surplus"),
        (Wraps(1), "its nidl_fit_callbacks is a hook wrapper"),
        (Says, "it is a class. Name an instance of it, or a module"),
        (object(), "it implements no hook"),
    ],
    ids=["misspelt", "surplus argument", "wrapper", "class", "nothing"],
)
def test_a_faulty_plugin_of_the_users_own_is_an_error_at_once_and_not_half_there(
    thing: Any, reason: str
) -> None:
    with pytest.raises(HookError, match=reason) as caught:
        register(thing, "mine")
    assert list(caught.value.reasons) == ["session:mine"]
    assert facts() == []
    assert hooks.faults == {}
    with pytest.raises(HookError), temporary(thing):
        pass
    register(Says(1), "mine")  # the name is not taken


def test_register_gives_an_id_of_its_own_to_each() -> None:
    assert register(Says(1)) == "session:Says"
    assert register(Says(2)) == "session:Says-2"
    assert register(Says(3), "mine") == "session:mine"
    with pytest.raises(HookError, match="session:mine .another one is registered by that name"):
        register(Says(4), "mine")


def test_a_plugin_is_registered_once_and_taken_back_once() -> None:
    plugin = Says(1)
    register(plugin)
    with pytest.raises(HookError, match="it is registered already"):
        register(plugin)
    unregister(plugin)
    assert facts() == []
    with pytest.raises(HookError, match="no such hook plugin is registered"):
        unregister(plugin)


def test_temporary_ends_with_its_block_also_when_that_raises() -> None:
    with temporary(Says(1), "mine") as plugin_id:
        assert plugin_id == "session:mine"
        assert facts() == [1]
    assert facts() == []
    with pytest.raises(ZeroDivisionError), temporary(Says(1)):
        _ = 1 / 0
    assert facts() == []


def test_one_that_is_taken_back_in_the_block_is_taken_back() -> None:
    plugin = Says(1)
    with temporary(plugin):
        unregister(plugin)
    assert facts() == []


def test_an_installed_plugin_that_the_user_registers_too_answers_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plugin = Says(1)
    install(monkeypatch, acme=plugin)
    with temporary(plugin):
        assert collect("nidl_model_facts", estimator=None) == [("session:Says", 1)]
    assert collect("nidl_model_facts", estimator=None) == [("acme:it", 1)]
