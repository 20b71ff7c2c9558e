"""`nidl new-plugin`: what is written, under which names, and what is refused."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from nidl_core.cli import main
from nidl_core.cli.new_plugin import LICENCES, new_plugin
from nidl_core.errors import InvalidParameter, NidlError, SpecError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KINDS = ("likelihood", "encoder", "decoder", "loss", "estimator", "hook")
FILES = {
    ".github/workflows/test.yml",
    ".gitignore",
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "src/nidl_two_words/__init__.py",
    "src/nidl_two_words/py.typed",
    "src/nidl_two_words/two_words.py",
    "tests/test_behaviour.py",
    "tests/test_conformance.py",
}


def texts(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file()
    }


def project(folder: Path) -> dict[str, Any]:
    text = folder.joinpath("pyproject.toml").read_text(encoding="utf-8")
    found: dict[str, Any] = tomllib.loads(text)["project"]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_is_a_whole_distribution(kind, tmp_path):
    written = texts(new_plugin(kind, "two_words", into=tmp_path))
    own = {"tests/test_conformance.py"} if kind == "hook" else set()
    assert set(written) == FILES - own
    assert all(text.endswith("\n") for path, text in written.items() if "py.typed" not in path)
    for path, text in written.items():
        assert not re.search(r"\$(?!\{\{)", text), f"{path} has a placeholder left"
        if path.endswith(".py"):
            ast.parse(text)


@pytest.mark.parametrize("kind", KINDS)
def test_the_entry_point_leads_to_what_the_module_defines(kind, tmp_path):
    folder = new_plugin(kind, "two_words", into=tmp_path)
    ((group, points),) = project(folder)["entry-points"].items()
    ((name, target),) = points.items()
    module, _, attribute = target.partition(":")
    assert group == {"loss": "nidl.losses", "hook": "nidl.hooks"}.get(kind, f"nidl.{kind}s")
    assert (name, module) == ("two_words", "nidl_two_words.two_words")
    assert attribute == ("" if kind == "hook" else "TwoWords")
    tree = ast.parse(texts(folder)["src/nidl_two_words/two_words.py"])
    assert not attribute or attribute in [getattr(node, "name", None) for node in tree.body]


def test_kinds_may_be_given_in_the_plural(tmp_path):
    for kind in KINDS:
        plural = {"loss": "losses"}.get(kind, f"{kind}s")
        one = new_plugin(kind, "two_words", into=tmp_path / "one" / kind)
        other = new_plugin(plural, "two_words", into=tmp_path / "other" / kind)
        assert texts(one) == texts(other)


def test_it_asks_for_the_minor_version_of_the_core_that_wrote_it(site, tmp_path):
    core = importlib.metadata.version("nidl-core").split(".")
    expected = f">={core[0]}.{core[1]}.0,<{core[0]}.{int(core[1]) + 1}"
    found = project(new_plugin("likelihood", "two_words", into=tmp_path))
    assert found["dependencies"][0] == f"nidl-core{expected}"
    assert found["optional-dependencies"]["test"][0] == f"nidl-core[testing]{expected}"


def test_it_asks_for_the_torch_that_the_core_asks_for(tmp_path):
    (torch,) = [r for r in importlib.metadata.requires("nidl-core") or [] if r.startswith("torch")]
    assert torch in project(new_plugin("encoder", "two_words", into=tmp_path))["dependencies"]


@pytest.mark.parametrize("licence", LICENCES)
def test_the_licence_is_there_in_full(licence, tmp_path):
    folder = new_plugin("loss", "mine", into=tmp_path, license=licence, author="Ada Lovelace")
    text = folder.joinpath("LICENSE").read_text(encoding="utf-8")
    assert project(folder)["license"] == licence
    if licence == "Apache-2.0":
        assert "TERMS AND CONDITIONS" in text
        assert text.count("\n") > 200
    else:
        assert re.search(rf"Copyright \(c\) {date.today().year},? Ada Lovelace\n", text)
        assert "WITHOUT WARRANTY" in text or "ANY EXPRESS OR IMPLIED WARRANTIES" in text


def test_an_author_s_name_is_quoted_as_toml_wants_it(tmp_path):
    author = 'Zoë "Zo" O\\Neil $name'
    folder = new_plugin("loss", "mine", into=tmp_path, author=author)
    assert project(folder)["authors"] == [{"name": author}]
    assert author in folder.joinpath("LICENSE").read_text(encoding="utf-8")


def test_without_an_author_it_belongs_to_its_developers(tmp_path):
    folder = new_plugin("loss", "mine", into=tmp_path)
    assert project(folder)["authors"] == [{"name": "The nidl-mine developers"}]


def test_the_distribution_may_have_another_name(tmp_path):
    folder = new_plugin("loss", "mine", into=tmp_path, distribution="Acme.Losses")
    assert folder == tmp_path / "Acme.Losses"
    assert project(folder)["name"] == "Acme.Losses"
    assert project(folder)["entry-points"]["nidl.losses"] == {"mine": "acme_losses.mine:Mine"}
    assert "src/acme_losses/mine.py" in texts(folder)


@pytest.mark.parametrize(
    "name",
    ["StudentT", "student-t", "student t", "2d", "_t", "t_", "a__b", "", "é", "class", "a\n"],
)
def test_a_name_that_a_shell_toml_or_python_cannot_say_is_refused(name, tmp_path):
    with pytest.raises(InvalidParameter, match="NAME must be lower-case words") as refusal:
        new_plugin("likelihood", name, into=tmp_path)
    assert repr(name) in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("distribution", ["nidl losses", "-x", "x-", "2d", "class", "../x", "a/b"])
def test_a_distribution_that_pip_or_python_cannot_name_is_refused(distribution, tmp_path):
    with pytest.raises(InvalidParameter, match="--distribution must be letters and digits"):
        new_plugin("likelihood", "mine", into=tmp_path, distribution=distribution)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("author", ["A. One, B. Two", "two\nlines"])
def test_an_author_that_the_metadata_cannot_hold_is_refused(author, tmp_path):
    with pytest.raises(InvalidParameter, match="--author must be one line without commas"):
        new_plugin("likelihood", "mine", into=tmp_path, author=author)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("likelihood", "tensor"), ("likelihood", "likelihood"), ("loss", "normal"), ("loss", "none")],
)
def test_a_class_that_would_hide_what_its_file_uses_is_refused(site, kind, name, tmp_path):
    with pytest.raises(InvalidParameter, match=f"would be called {name.capitalize()}"):
        new_plugin(kind, name, into=tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_a_name_that_an_installed_component_has_is_refused_with_its_owner(site, tmp_path):
    site.add("nidl-acme", {"cauchy": "acme:Cauchy"}, group="nidl.likelihoods")
    with pytest.raises(SpecError) as refusal:
        new_plugin("likelihood", "cauchy", into=tmp_path / "here")
    assert str(refusal.value) == (
        "the likelihood name 'cauchy' is taken by 'nidl-acme:cauchy'. Choose another name."
    )
    assert new_plugin("encoder", "cauchy", into=tmp_path / "here").is_dir()


def test_a_name_of_two_owners_names_both(site, tmp_path):
    for name in ("nidl-a", "nidl-b"):
        site.add(name, {"cauchy": "x:Y"}, group="nidl.likelihoods")
    with pytest.raises(SpecError, match="taken by 'nidl-a:cauchy' and 'nidl-b:cauchy'"):
        new_plugin("likelihood", "cauchy", into=tmp_path / "here")


def test_a_name_whose_owner_is_switched_off_is_refused_too(site, tmp_path, monkeypatch):
    site.add("nidl-acme", {"cauchy": "acme:Cauchy"}, group="nidl.likelihoods")
    monkeypatch.setenv("NIDL_DISABLE_PLUGINS", "nidl-acme")
    with pytest.raises(SpecError, match="taken by 'nidl-acme:cauchy'"):
        new_plugin("likelihood", "cauchy", into=tmp_path / "here")


def test_a_name_of_a_known_plugin_that_is_not_installed_is_refused_too(site, tmp_path):
    with pytest.raises(SpecError, match="taken by 'nidl-likelihoods:laplace'"):
        new_plugin("likelihood", "laplace", into=tmp_path / "here")
    assert new_plugin("likelihood", "laplac", into=tmp_path / "here").is_dir()


def test_the_name_of_an_installed_distribution_is_refused(site, tmp_path):
    site.add("nidl-mine", version="3.1")
    with pytest.raises(SpecError, match=r"nidl-mine 3\.1 is installed: that name is taken"):
        new_plugin("loss", "mine", into=tmp_path / "here")


@pytest.mark.parametrize(
    ("distribution", "told"),
    [
        ("random", "the module name 'random' is taken by"),
        ("acme", "the module name 'acme' is taken by"),
        ("nidl.core", "nidl.core .* is installed"),
    ],
)
def test_a_module_that_exists_is_refused_and_not_imported(site, distribution, told, tmp_path):
    site.module("acme", "raise RuntimeError('imported')")
    with pytest.raises(SpecError, match=told):
        new_plugin("loss", "mine", into=tmp_path / "here", distribution=distribution)


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path):
    kept = tmp_path / "nidl-mine" / "kept.txt"
    kept.parent.mkdir()
    kept.write_text("mine", encoding="utf-8")
    with pytest.raises(
        NidlError, match="nidl-mine is there already. Choose another name, or --into"
    ):
        new_plugin("loss", "mine", into=tmp_path)
    assert texts(tmp_path) == {"nidl-mine/kept.txt": "mine"}


def test_a_file_in_the_way_is_refused_and_left_alone(tmp_path):
    (tmp_path / "nidl-mine").write_text("mine", encoding="utf-8")
    with pytest.raises(NidlError, match="nidl-mine is there already"):
        new_plugin("loss", "mine", into=tmp_path)
    assert texts(tmp_path) == {"nidl-mine": "mine"}


def test_an_empty_folder_is_filled_and_a_missing_one_made(tmp_path):
    (tmp_path / "nidl-mine").mkdir()
    assert texts(new_plugin("loss", "mine", into=tmp_path))
    assert texts(new_plugin("loss", "mine", into=tmp_path / "a" / "b"))


def test_a_disk_that_fails_midway_leaves_nothing_behind(tmp_path, monkeypatch):
    write_text, written = Path.write_text, []

    def failing(path, *args, **kwargs):
        written.append(path)
        if len(written) == 5:
            raise OSError(28, "No space left on device")
        return write_text(path, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", failing)
    with pytest.raises(NidlError, match=r"cannot write .*nidl-mine: .*No space left"):
        new_plugin("loss", "mine", into=tmp_path)
    assert len(written) == 5
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_to_do_next(site, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["new-plugin", "likelihood", "student_t", "--into", "my plugins"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{Path('my plugins', 'nidl-student-t')} is written. Next:"
    assert [line.strip() for line in lines if line.startswith("  ")] == [
        "cd 'my plugins/nidl-student-t'",
        "pip install -e '.[test]'",
        "python -m pytest",
    ]
    assert Path("my plugins", "nidl-student-t", "pyproject.toml").is_file()


def test_the_command_refuses_in_one_line_with_exit_status_1(site, tmp_path, capsys):
    assert main(["new-plugin", "likelihood", "laplace", "--into", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "'nidl-likelihoods:laplace'" in captured.err


@pytest.mark.parametrize("arguments", [["likelyhood", "x"], ["loss", "x", "--license", "GPL"], []])
def test_wrong_usage_is_exit_status_2(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["new-plugin", *arguments])
    assert "usage: nidl new-plugin" in capsys.readouterr().err


def test_it_needs_neither_torch_nor_numpy(site, tmp_path):
    # The process sees the core, pluggy and packaging alone.
    names = site.ask(
        f"""
        import json, os, sys
        from nidl_core.cli import main
        assert main(["new-plugin", "estimator", "mine", "--into", {str(tmp_path)!r}]) == 0
        print(json.dumps(sorted(os.listdir({str(tmp_path / "nidl-mine")!r}))))
        """
    )
    assert "pyproject.toml" in names
