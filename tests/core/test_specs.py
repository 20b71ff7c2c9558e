"""Spec files: TOML and JSON to names and parameters, and what is refused on the way."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from nidl_core import specs
from nidl_core.errors import NidlError, SpecError, UnknownComponent, UnknownParameter

TOML = """
name = "tiny"
[params]
lr = 0.5
max_epochs = 3
tied = true
[params.encoder]
name = "flat"
params = { width = 5, gain = [1.0, 2.0] }
"""
SPEC = {
    "name": "tiny",
    "params": {
        "lr": 0.5,
        "max_epochs": 3,
        "tied": True,
        "encoder": {"name": "flat", "params": {"width": 5, "gain": [1.0, 2.0]}},
    },
}


def written(folder: Path, text: str, name: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refused(path: Path) -> str:
    with pytest.raises(SpecError) as caught:
        specs.read(path)
    return str(caught.value).replace(f"{path.parent}/", "")


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    assert specs.read(written(tmp_path, TOML, "a.toml")) == SPEC
    assert specs.read(written(tmp_path, json.dumps(SPEC), "a.json")) == SPEC
    assert specs.read(str(written(tmp_path, json.dumps(SPEC), "B.JSON"))) == SPEC


def test_a_byte_order_mark_is_no_syntax_error(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b"\xef\xbb\xbf" + TOML.encode())
    assert specs.read(path) == SPEC


def test_params_may_be_left_out_and_what_was_resolved_is_not_read(tmp_path: Path) -> None:
    told = json.dumps({"name": "tiny", "resolved": {"components": [float("nan")]}})
    assert specs.read(written(tmp_path, told, "a.json")) == {"name": "tiny", "params": {}}


def test_null_is_none(tmp_path: Path) -> None:
    text = '{"name": "tiny", "params": {"note": null}}'
    assert specs.read(written(tmp_path, text, "a.json"))["params"] == {"note": None}


def test_build_is_nidl_build_and_leaves_the_spec_alone(tmp_path: Path, tiny: Any) -> None:
    spec = specs.read(written(tmp_path, TOML, "a.toml"))
    made = specs.build(spec)
    assert type(made) is tiny
    assert made.get_params()["encoder__width"] == 5
    assert made.get_params(deep=False)["max_epochs"] == 3
    made.set_params(encoder__width=7, lr=1.0)
    assert spec == SPEC


BAD = {
    "TOML goes wrong on line 3": (
        'name = "tiny"\n[params]\nlr = \n',
        "a.toml",
        "a.toml is not valid TOML: Invalid value (at line 3, column 6).",
    ),
    "JSON goes wrong on line 2": (
        '{"name": "tiny",\n"params": {,}}',
        "a.json",
        "a.json is not valid JSON: Expecting property name enclosed in double quotes: line 2 column "
        "12 (char 28).",
    ),
    "empty JSON": (
        "",
        "a.json",
        "a.json is not valid JSON: Expecting value: line 1 column 1 (char 0).",
    ),
    "empty TOML": (
        "",
        "a.toml",
        "a.toml: 'name' must be the name of an estimator, like \"vae\", and it is missing.",
    ),
    "a list": (
        "[]",
        "a.json",
        'a.json: a spec is a table {"name": ..., "params": {...}}, got a list.',
    ),
    "a name that is a number": (
        "name = 3",
        "a.toml",
        "a.toml: 'name' must be the name of an estimator, like \"vae\", got 3.",
    ),
    "an empty name": (
        'name = ""',
        "a.toml",
        "a.toml: 'name' must be the name of an estimator, like \"vae\", got ''.",
    ),
    "params that are a list": (
        '{"name": "tiny", "params": [1]}',
        "a.json",
        "a.json: 'params' must be a table of parameters, got [1].",
    ),
    "a misspelt key": (
        'name = "tiny"\n[parms]\n',
        "a.toml",
        "a.toml: a spec has the keys 'name' and 'params', got also 'parms'. Did you mean 'params'?",
    ),
    "a parameter at the top": (
        'name = "tiny"\nlr = 1.0\n',
        "a.toml",
        "a.toml: a spec has the keys 'name' and 'params', got also 'lr'. Parameters go inside 'params'.",
    ),
    "NaN": (
        '{"name": "tiny", "params": {"encoder": {"params": {"gain": [0, NaN]}}}}',
        "a.json",
        "a.json: params.encoder.params.gain[1] is nan: a spec holds finite numbers.",
    ),
    "infinity in TOML": (
        'name = "tiny"\nparams = { lr = -inf }',
        "a.toml",
        "a.toml: params.lr is -inf: a spec holds finite numbers.",
    ),
    "a float that overflows": (
        '{"name": "tiny", "params": {"lr": 1e999}}',
        "a.json",
        "a.json: params.lr is inf: a spec holds finite numbers.",
    ),
    "an int of 65 bits": (
        f'name = "tiny"\nparams = {{ batch_size = {2**63} }}',
        "a.toml",
        "a.toml: params.batch_size is an integer of more than 64 bits.",
    ),
    "a date": (
        'name = "tiny"\nparams = { note = 2026-01-02 }',
        "a.toml",
        "a.toml: params.note is a date, which no parameter is.",
    ),
    "duplicate keys in JSON": (
        '{"name": "tiny", "params": {"lr": 1, "lr": 2}}',
        "a.json",
        "a.json is not valid JSON: the key 'lr' comes twice in one object.",
    ),
    "duplicate keys in TOML": (
        'name = "tiny"\nname = "vae"\n',
        "a.toml",
        "a.toml is not valid TOML: Cannot overwrite a value",
    ),
    "33 levels": (
        '{"name": "tiny", "params": {"note": ' + "[" * 33 + "]" * 33 + "}}",
        "a.json",
        "is nested more than 32 levels deep.",
    ),
    "JSON of 200000 levels": ("[" * 200_000, "a.json", "a.json is nested too deeply to be a spec."),
    "TOML of 200000 levels": (
        "name = " + "[" * 200_000,
        "a.toml",
        "a.toml is nested too deeply to be a spec.",
    ),
    "YAML": (
        "!!python/object/apply:os.system ['true']",
        "a.yaml",
        "a.yaml: a spec file is .toml or .json. Nothing else is read (YAML and pickle can hold more "
        "than data).",
    ),
    "no suffix": (TOML, "spec", "spec: a spec file is .toml or .json."),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_is_no_spec_is_refused_in_words(tmp_path: Path, case: str) -> None:
    text, name, message = BAD[case]
    assert message in refused(written(tmp_path, text, name))


@pytest.mark.parametrize("name", ["a.toml", "a.json"])
def test_an_int_of_5000_digits_is_refused(tmp_path: Path, name: str) -> None:
    inner = f'"lr": {"9" * 5000}' if name == "a.json" else f"lr = {'9' * 5000}"
    head = '{"name": "tiny", "params": {' if name == "a.json" else 'name = "tiny"\nparams = {'
    end = "}}" if name == "a.json" else "}"
    assert "a." in refused(written(tmp_path, f"{head}{inner}{end}", name))


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    assert refused(tmp_path / "gone.toml") == "there is no spec file gone.toml."
    (tmp_path / "folder.toml").mkdir()
    assert "cannot read folder.toml: " in refused(tmp_path / "folder.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    assert "cannot read latin.toml: 'utf-8' codec can't decode" in refused(tmp_path / "latin.toml")


def test_a_pickle_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "spec.pkl").write_bytes(pickle.dumps(SPEC))
    assert "a spec file is .toml or .json" in refused(tmp_path / "spec.pkl")
    (tmp_path / "spec.json").write_bytes(pickle.dumps(SPEC))
    assert "cannot read spec.json: 'utf-8' codec" in refused(tmp_path / "spec.json")


PATHS = [
    "os.system",
    "os:system",
    "__import__",
    "builtins:eval",
    "logging.os.system",
    "antigravity",
    "antigravity:fly",
    "nidl_core.estimator:Estimator",
    "!!python/object/apply:os.system",
    "../tiny",
    "tiny; import os",
]


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", PATHS)
def test_a_name_in_a_file_is_never_an_import_path(tmp_path: Path, name: str) -> None:
    before = set(sys.modules)
    for spec in (
        {"name": name},
        {"name": "tiny", "params": {"encoder": name}},
        {"name": "tiny", "params": {"encoder": {"name": name, "params": {}}}},
    ):
        read = specs.read(written(tmp_path, json.dumps(spec), "a.json"))
        with pytest.raises(UnknownComponent):
            specs.build(read)
    assert "antigravity" not in set(sys.modules) - before


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("params", "error", "text"),
    [
        ({"lrr": 1.0}, UnknownParameter, "Did you mean 'lr'?"),
        ({"self": 1}, UnknownParameter, "Tiny has no parameter 'self'."),
        ({"__class__": "os.system"}, UnknownParameter, "has no parameter '__class__'"),
        ({"encoder": {"nam": "flat"}}, SpecError, "a spec has the keys 'name' and 'params'"),
        ({"encoder": {"name": "flat", "width": 3}}, SpecError, "Parameters go inside 'params'."),
        ({"encoder": {"name": "flat", "params": {"widht": 3}}}, UnknownParameter, "'width'"),
        ({"encoder": ["flat"]}, SpecError, "encoder must be a name"),
        ({"encoder": {"_target_": "os.system"}}, SpecError, "got also _target_"),
    ],
    ids=str,
)
def test_what_is_unknown_inside_a_spec_is_refused_with_the_nearest(
    params: Any, error: type[NidlError], text: str
) -> None:
    spec = {"name": "tiny", "params": params}
    before = copy.deepcopy(spec)
    with pytest.raises(error) as caught:
        specs.build(spec)
    assert text in str(caught.value)
    assert spec == before


def test_missing_parameters_are_named_all_at_once(tiny: Any) -> None:
    class Needy(tiny):  # type: ignore[misc]
        def __init__(self, lr: float, note: Any, **trainer_kwargs: Any) -> None:
            super().__init__(lr=lr, note=note, **trainer_kwargs)

    from nidl_core import estimators

    with estimators.temporary("needy", Needy):
        for params, missing in [({}, "lr and note: give them"), ({"lr": 1.0}, "note: give it")]:
            with pytest.raises(SpecError, match=f"needy needs {missing} in params"):
                specs.build({"name": "needy", "params": params})
        made = specs.build({"name": "needy", "params": {"lr": 1.0, "note": "x"}})
    assert made.get_params(deep=False)["note"] == "x"


def test_a_cycle_of_one_s_own_is_refused_by_the_names_in_it() -> None:
    cycle: dict[str, Any] = {"name": "tiny"}
    cycle["params"] = cycle
    with pytest.raises(SpecError, match=r"is nested more than 32 levels deep"):
        specs.check_plain(cycle, "params")


@pytest.mark.parametrize("value", [{1, 2}, b"x", object(), (1, 2), 1j])
def test_what_no_file_can_hold_is_not_plain(value: Any) -> None:
    with pytest.raises(SpecError, match=r"^params\.a is a .*, which no parameter is"):
        specs.check_plain({"a": value}, "params")
