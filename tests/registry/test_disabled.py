"""NIDL_DISABLE_PLUGINS: what it names is listed, and not imported."""

from __future__ import annotations

from typing import Any

import pytest

import nidl_core
from nidl_core.discovery import disabled
from nidl_core.errors import AmbiguousComponent, DisabledComponent, UnknownComponent

CLASS = "from toy_interface import Base\nclass T(Base):\n    def forward(self): ...\n"
IMPORTED = "raise AssertionError('it was imported')\n"


@pytest.fixture(autouse=True)
def variable(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the variable; it is not set at first."""
    monkeypatch.delenv("NIDL_DISABLE_PLUGINS", raising=False)
    return lambda text: monkeypatch.setenv("NIDL_DISABLE_PLUGINS", text)


@pytest.mark.parametrize(
    ("text", "off"),
    [
        ("", False),
        (",", False),
        ("nidl-acme", True),
        ("NIDL_Acme", True),
        (" nidl.acme , other", True),
        ("nidl-acme:mine", True),
        ("nidl_acme : MINE", True),
        ("nidl-acme:my-ne", False),
        ("nidl-acme:other", False),
        ("nidl", False),
        ("mine", False),
        (":mine", False),
        ("*", True),
        ("other,*", True),
    ],
)
def test_what_the_variable_names(variable: Any, text: str, off: bool) -> None:
    variable(text)
    assert disabled("nidl-acme", "mine") is off


def test_the_core_is_switched_off_by_its_name_only(variable: Any) -> None:
    variable("*")
    assert not disabled("nidl-core", "core")
    variable("nidl-core")
    assert disabled("nidl-core", "core")


@pytest.mark.parametrize("text", ["nidl-acme", "nidl-acme:mine", "*"])
def test_asking_for_a_disabled_component_names_the_variable_and_imports_nothing(
    site: Any, registry: Any, variable: Any, text: str
) -> None:
    site.add("nidl-acme", {"mine": "acme:T"}, modules={"acme": IMPORTED})
    variable(text)
    for ask in (registry.get, registry.entry, registry.build):
        for name in ("mine", "nidl-acme:mine"):
            with pytest.raises(DisabledComponent) as caught:
                ask(name)
            assert str(caught.value) == (
                f"the encoder {name!r} (nidl-acme:mine) is switched off by the environment variable "
                f"NIDL_DISABLE_PLUGINS={text!r}. Take it out of there to use it."
            )
    assert registry.faults == {}
    assert registry.names() == []
    assert [registry.status(e) for e in registry.entries()] == ["disabled by NIDL_DISABLE_PLUGINS"]


def test_taken_out_of_the_variable_it_is_there_again(
    site: Any, registry: Any, variable: Any
) -> None:
    site.add("nidl-acme", {"mine": "acme:T"}, modules={"acme": CLASS})
    variable("nidl-acme")
    with pytest.raises(DisabledComponent):
        registry.get("mine")
    variable("")
    assert registry.get("mine").__name__ == "T"
    variable("nidl-acme")  # imported or not
    with pytest.raises(DisabledComponent):
        registry.get("mine")


def test_one_component_of_several_can_be_disabled(site: Any, registry: Any, variable: Any) -> None:
    site.add("nidl-acme", {"mine": "acme:T", "other": "acme:T"}, modules={"acme": CLASS})
    registry.refresh()
    variable("nidl-acme:mine")
    assert registry.names() == ["other"]
    assert registry.get("other").__name__ == "T"


def test_disabling_one_is_a_way_out_of_two_with_one_name(
    site: Any, registry: Any, variable: Any
) -> None:
    for name in ("a", "b", "c"):
        site.add(f"nidl-{name}", {"twin": f"twin_{name}:T"}, modules={f"twin_{name}": CLASS})
    variable("nidl-a")
    with pytest.raises(AmbiguousComponent) as caught:
        registry.get("twin")
    assert caught.value.ids == ["nidl-b:twin", "nidl-c:twin"]
    assert {e.id: registry.status(e) for e in registry.entries()} == {
        "nidl-a:twin": "disabled by NIDL_DISABLE_PLUGINS",
        "nidl-b:twin": "ambiguous: say nidl-b:twin",
        "nidl-c:twin": "ambiguous: say nidl-c:twin",
    }
    variable("nidl-a,nidl-b")
    assert registry.get("twin").__module__ == "twin_c"
    variable("*")
    with pytest.raises(DisabledComponent) as off:
        registry.get("twin")
    assert off.value.ids == ["nidl-a:twin", "nidl-b:twin", "nidl-c:twin"]


def test_a_disabled_name_is_free_for_this_session(site: Any, registry: Any, variable: Any) -> None:
    site.add("nidl-acme", {"mine": "acme:T"}, modules={"acme": CLASS, "own": CLASS})
    variable("*")
    import own  # type: ignore[import-not-found]

    with registry.temporary("mine", own.T):
        assert registry.get("mine") is own.T
        assert registry.names() == ["mine"]


@pytest.mark.usefixtures("site")
def test_a_near_name_that_is_disabled_is_still_the_near_name(site: Any, variable: Any) -> None:
    site.add("nidl-backbones", {"mlp": "nidl_backbones:M"})
    variable("nidl-backbones")
    with pytest.raises(UnknownComponent) as caught:
        nidl_core.encoders.get("mpl")
    assert str(caught.value) == "no encoder named 'mpl'. Did you mean 'mlp'? Installed: none."


def test_the_list_shows_it_and_show_says_why_not(site: Any) -> None:
    site.add("nidl-acme", {"mine": "acme:T"}, modules={"acme": IMPORTED})
    code = "import sys; from nidl_core.cli import main; sys.exit(main(sys.argv[1:] or {}))"
    listed = site.run(code.format(["list"]), NIDL_DISABLE_PLUGINS="nidl_acme")
    assert "mine  nidl-acme     1.0      disabled by NIDL_DISABLE_PLUGINS" in listed.stdout
    shown = site.run(code.format(["show", "mine"]), NIDL_DISABLE_PLUGINS="nidl_acme")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert (
        "switched off by the environment variable NIDL_DISABLE_PLUGINS='nidl_acme'" in shown.stderr
    )
