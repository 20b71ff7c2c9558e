"""From specs to recipes to components."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import nidl_core
from nidl_core.assembly import Recipe, build, read_spec, split_spec, with_params
from nidl_core.errors import NidlError, SpecError, UnknownComponent, UnknownParameter


def recipe(spec: Any) -> Recipe:
    found = read_spec("encoders", spec)
    assert found is not None
    return found


FORMS = {
    "name": "flat",
    "full id": "session:flat",
    "dict": {"name": "flat"},
    "dict with params": {"name": "flat", "params": {"width": 5}},
    "dict with empty params": {"name": "session:flat", "params": {}},
}


@pytest.mark.parametrize("spec", FORMS.values(), ids=FORMS)
def test_every_form_by_name_leads_to_the_class(flat: Any, spec: Any) -> None:
    before = copy.deepcopy(spec)
    found = recipe(spec)
    assert found.cls is flat
    assert found.entry is not None
    assert found.entry.id == "session:flat"
    width = spec.get("params", {}).get("width", 3) if isinstance(spec, dict) else 3
    assert found.make(input_shape=(1, 2)).out_features == width
    assert spec == before


def test_a_class_is_a_spec_with_and_without_params(flat: Any) -> None:
    for spec, width in [(flat, 3), ({"name": flat, "params": {"width": 5}}, 5)]:
        found = recipe(spec)
        assert found.cls is flat
        assert found.entry is None
        assert found.make(input_shape=(1, 2)).out_features == width


def test_an_instance_is_no_recipe_and_is_used_as_it_is(flat: Any) -> None:
    for module in (flat((1, 2)), nn.Identity()):
        assert read_spec("encoders", module) is None
        assert split_spec("encoders", module) == (None, {})


@pytest.mark.usefixtures("flat")
def test_make_and_defaults_leave_the_callers_objects_alone() -> None:
    gains = [1, 2]
    spec = {"name": "flat", "params": {"gain": gains}}
    found = recipe(spec)
    first, second = found.make(input_shape=(1,)), found.make(input_shape=(1,))
    first.gain.append(3)
    assert second.gain == gains == [1, 2]
    assert found.defaults() == {"width": 3, "gain": [1, 2]}
    found.params["width"] = 7
    assert spec == {"name": "flat", "params": {"gain": [1, 2]}}


@pytest.mark.usefixtures("flat")
@pytest.mark.parametrize(
    ("params", "text"),
    [
        (
            {"widht": 3},
            "encoder 'flat' has no parameter 'widht'. Did you mean 'width'? It takes: width, gain.",
        ),
        ({"zzz": 3}, "encoder 'flat' has no parameter 'zzz'. It takes: width, gain."),
        (
            {"width": 1, "input_shape": (1, 2)},
            "encoder 'flat' has no parameter 'input_shape'. It takes: width, gain.",
        ),
        ({"self": 1}, "encoder 'flat' has no parameter 'self'. It takes: width, gain."),
    ],
)
def test_unknown_parameters_are_refused_with_the_nearest(params: Any, text: str) -> None:
    with pytest.raises(UnknownParameter) as caught:
        read_spec("encoders", {"name": "flat", "params": params})
    assert str(caught.value) == text
    assert caught.value.accepted == ["width", "gain"]


def test_an_unknown_parameter_of_a_class_names_the_class(flat: Any) -> None:
    with pytest.raises(UnknownParameter, match="^encoder Flat has no parameter 'widht'"):
        read_spec("encoders", {"name": flat, "params": {"widht": 3}})


@pytest.mark.usefixtures("flat")
@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"params": {"width": 3}},
        {"name": None},
        {"name": 3},
        {"name": nn.Identity()},
        {"name": "flat", "params": None},
        {"name": "flat", "params": ["width"]},
        {"name": "flat", "params": {3: 4}},
        {"name": "flat", "width": 3},
        {"name": "flat", "params": {}, "extra": 1, 3: 4},
        None,
        3,
        ["flat"],
        ("flat", {}),
        {"flat"},
        b"flat",
    ],
    ids=repr,
)
def test_malformed_specs_are_refused(spec: Any) -> None:
    before = repr(spec)
    with pytest.raises(SpecError, match="^encoder"):
        read_spec("encoders", spec)
    assert repr(spec) == before


def test_texts_of_malformed_specs(flat: Any) -> None:
    texts = {
        "encoder: a spec has the keys 'name' and 'params', got also width. Parameters go inside 'params'.": {
            "name": "flat",
            "width": 3,
        },
        'encoder: a spec is {"name": "...", "params": {...}}, got {\'name\': 3}.': {"name": 3},
    }
    for text, spec in texts.items():
        with pytest.raises(SpecError) as caught:
            read_spec("encoders", spec)
        assert str(caught.value) == text
    with pytest.raises(SpecError) as caught:
        read_spec("encoders", 3)
    assert str(caught.value) == (
        'encoder must be a name, {"name": ..., "params": {...}}, a component or its class, got 3. '
        f"Installed: {', '.join(nidl_core.available('encoders'))}."
    )
    assert flat.__name__ == "Flat"


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "os:system",
        "__import__",
        "torch.nn:Identity",
        "builtins:eval",
        "flat; import os",
        "../flat",
    ],
)
@pytest.mark.usefixtures("flat")
def test_a_name_is_never_an_import_path(name: str) -> None:
    for spec in (name, {"name": name}):
        with pytest.raises(UnknownComponent):
            read_spec("encoders", spec)


@pytest.mark.parametrize("cls", [dict, int, nn.Linear, torch.Tensor], ids=lambda c: c.__name__)
def test_a_class_of_another_kind_is_refused_when_the_spec_is_read(cls: type) -> None:
    with pytest.raises(NidlError):
        read_spec("encoders", cls)


def test_no_such_kind() -> None:
    with pytest.raises(SpecError, match="there is no kind 'encoder'"):
        read_spec("encoder", "flat")


@pytest.mark.usefixtures("flat")
@pytest.mark.parametrize(
    ("spec", "params", "changed"),
    [
        ("flat", {"width": 1}, {"name": "flat", "params": {"width": 1}}),
        (
            {"name": "flat", "params": {"width": 1, "gain": 2}},
            {"width": 4},
            {"name": "flat", "params": {"width": 4, "gain": 2}},
        ),
        ({"name": "flat"}, {}, {"name": "flat", "params": {}}),
    ],
)
def test_with_params_gives_a_new_spec_and_keeps_the_old(
    spec: Any, params: Any, changed: Any
) -> None:
    before = copy.deepcopy(spec)
    new = with_params("encoders", "encoder", spec, params)
    assert new == changed
    new["params"]["more"] = 1
    assert spec == before


def test_with_params_of_a_class_keeps_the_class(flat: Any) -> None:
    assert with_params("encoders", "encoder", flat, {"width": 1}) == {
        "name": flat,
        "params": {"width": 1},
    }


def test_params_of_an_object_cannot_be_set() -> None:
    with pytest.raises(SpecError) as caught:
        with_params("encoders", "encoder", nn.Identity(), {"width": 1, "gain": 2})
    assert str(caught.value) == (
        "cannot set encoder__width, encoder__gain: the encoder was handed in as an object, so its "
        "parameters are its own. Give it by name or as a class instead."
    )


def test_build_is_the_class_called(tiny: Any) -> None:
    made = build("tiny", lr=0.5, max_epochs=3)
    assert type(made) is tiny
    assert made.get_params(deep=False) == tiny(lr=0.5, max_epochs=3).get_params(deep=False)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("params", "error", "text"),
    [
        ({"encoder": "flatt"}, UnknownComponent, "no encoder named 'flatt'. Did you mean 'flat'?"),
        (
            {"encoder": {"name": "flat", "params": {"w": 1}}},
            UnknownParameter,
            "has no parameter 'w'",
        ),
        ({"lrr": 1}, UnknownParameter, "Tiny has no parameter 'lrr'. Did you mean 'lr'?"),
        ({"max_epoch": 1}, UnknownParameter, "Did you mean 'max_epochs'?"),
    ],
)
def test_build_refuses_unknown_names_at_once(params: Any, error: type, text: str) -> None:
    with pytest.raises(error) as caught:
        build("tiny", **params)
    assert text in str(caught.value)


@pytest.mark.parametrize("name", [None, 3, {"name": "tiny"}, object])
def test_build_takes_a_name(name: Any) -> None:
    with pytest.raises(SpecError, match="build takes the name of an estimator"):
        build(name)
