"""`nidl doctor` without an import: what is installed, from where, and what is wrong with it."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

import pytest

CLASS = "class T: pass"
EXAMINE = """
import json, sys
from nidl_core.doctor import examine
report = examine()
heavy = {"torch", "lightning", "numpy", "acme", "one", "two"} & set(sys.modules)
assert not heavy, heavy
print(json.dumps(report))
"""
CLI = "import sys; from nidl_core.cli import main; sys.exit(main(['doctor', *{}]))"


def problems(site: Any, **how: Any) -> list[dict[str, str]]:
    return site.ask(EXAMINE, **how)["problems"]  # type: ignore[no-any-return]


def only(site: Any, what: str, **how: Any) -> dict[str, str]:
    """The one problem that there is."""
    (problem,) = problems(site, **how)
    assert problem["what"] == what
    return problem


def test_a_clean_installation_is_exit_status_0(whole: Any) -> None:
    whole.add("nidl-acme", {"mine": "acme:T"}, requires=["nidl-core>=0"], modules={"acme": CLASS})
    result = whole.run(CLI.format([]))
    assert (result.returncode, result.stderr) == (0, "")
    assert "nidl-acme 1.0, for nidl-core >=0, in" in result.stdout
    assert "  encoders     mine\n" in result.stdout
    assert result.stdout.endswith(
        "No problems found. `nidl doctor --load` imports every plugin, too.\n"
    )


def test_a_problem_is_exit_status_1_and_says_what_to_do(whole: Any) -> None:
    whole.add("nidl-acme", {"mine": "gone:T"})
    result = whole.run(CLI.format([]))
    assert result.returncode == 1
    assert result.stdout.endswith(
        "\n1 problem\n- nidl-acme:mine leads to gone:T, and there is no such module\n"
        "  pip install --force-reinstall --no-deps nidl-acme\n"
    )


def test_json_is_the_whole_report(whole: Any) -> None:
    whole.add(
        "nidl-acme",
        {"mine": "acme:T"},
        requires=["nidl-core>=0,<99", "torch"],
        modules={"acme": CLASS},
    )
    whole.add("nidl-hooked", {"h": "acme"}, group="nidl.hooks")
    result = whole.run(CLI.format(["--json"]))
    assert result.returncode == 0, result.stdout
    report = json.loads(result.stdout)
    assert report["python"]["executable"] == sys.executable
    assert report["core"]["version"] == importlib.metadata.version("nidl-core")
    assert report["core"]["interface_version"] == 1
    assert Path(report["core"]["place"]) == whole.bare / "nidl_core"
    assert (report["torch"], report["problems"], report["notes"]) == (None, [], [])
    acme, core, hooked = report["distributions"]
    assert core["name"] == "nidl-core"
    assert acme == {
        "name": "nidl-acme",
        "version": "1.0",
        "place": str(whole.folder),
        "editable": False,
        "source": None,
        "core_range": "<99,>=0",
        "components": [
            {
                "kind": "encoders",
                "name": "mine",
                "id": "nidl-acme:mine",
                "target": "acme:T",
                "status": "ok",
                "seconds": None,
            }
        ],
        "hooks": [],
    }
    assert [hook["id"] for hook in hooked["hooks"]] == ["nidl-hooked:h"]


def test_a_name_of_two_distributions(whole: Any) -> None:
    for name in ("one", "two"):
        whole.add(f"nidl-{name}", {"twin": f"{name}:T"}, modules={name: CLASS})
    assert only(whole, "ambiguous") == {
        "what": "ambiguous",
        "about": "twin",
        "text": "2 distributions provide the encoder 'twin': nidl-one:twin, nidl-two:twin",
        "remedy": "Ask for 'nidl-one:twin' or 'nidl-two:twin', uninstall one, or set "
        "NIDL_DISABLE_PLUGINS=nidl-two:twin",
    }
    assert problems(whole, NIDL_DISABLE_PLUGINS="nidl-two:twin") == []


def test_names_that_differ_in_case_or_separators_alone(whole: Any) -> None:
    points = {"student_t": "one:T", "Student-T": "one:T"}
    whole.add("nidl-one", points, modules={"one": CLASS})
    assert only(whole, "alike")["text"] == (
        "encoders that differ in case or separators alone: nidl-one:Student-T, nidl-one:student_t"
    )


@pytest.mark.parametrize("names", [("nidl-acme", "nidl-acme"), ("nidl-acme", "NIDL_Acme")])
def test_a_distribution_twice_on_the_path(
    whole: Any, tmp_path: Path, names: tuple[str, str]
) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for name, version, folder in zip(names, ("1.0", "2.0"), folders, strict=True):
        whole.add(name, {"mine": "acme:T"}, version=version, folder=folder, modules={"acme": CLASS})
    problem = only(whole, "twice", path=[*folders, whole.folder])
    first, second = (
        whole.info(n, v, f) for n, v, f in zip(names, ("1.0", "2.0"), folders, strict=True)
    )
    assert problem["text"] == (
        f"nidl-acme is installed 2 times: 1.0 in {first} (this one counts), 2.0 in {second}"
    )
    assert problem["remedy"].startswith("pip uninstall nidl-acme")


def test_a_folder_that_is_on_the_path_under_two_names_is_one(whole: Any, tmp_path: Path) -> None:
    whole.add("nidl-acme", {"mine": "acme:T"}, folder=tmp_path / "lib", modules={"acme": CLASS})
    (tmp_path / "lib64").symlink_to(tmp_path / "lib")
    assert problems(whole, path=[tmp_path / "lib", tmp_path / "lib64", whole.folder]) == []


def test_a_range_that_leaves_out_this_core(whole: Any) -> None:
    whole.add("nidl-acme", {"mine": "acme:T"}, requires=["nidl-core>=99"], modules={"acme": CLASS})
    core = importlib.metadata.version("nidl-core")
    assert only(whole, "incompatible")["text"] == (
        f"nidl-acme 1.0: it asks for nidl-core >=99, this is nidl-core {core}. Install releases that "
        "agree: pip install --upgrade nidl-core nidl-acme"
    )


def test_a_requirement_that_is_not_there(whole: Any) -> None:
    requires = ["gone>=1.2", "torch<5", "never; python_version < '3'", "more; extra == 'all'"]
    whole.add("nidl-acme", {"mine": "acme:T"}, requires=requires, modules={"acme": CLASS})
    gone, old = problems(whole)
    assert gone["text"] == "nidl-acme 1.0 asks for gone>=1.2, which is not installed"
    assert gone["remedy"] == "pip install 'gone>=1.2'"
    assert old["text"] == "nidl-acme 1.0 asks for torch<5, which is there as 99"


def test_without_torch_the_core_says_so(site: Any) -> None:
    texts = [problem["text"] for problem in problems(site)]
    assert any("asks for torch" in text and "which is not installed" in text for text in texts)


@pytest.mark.parametrize(
    ("group", "meant"),
    [
        ("nidl.encoder", "nidl.encoders"),
        ("nidl.encodres", "nidl.encoders"),
        ("nidl_core.encoders", "nidl.encoders"),
        ("nidl-likelihoods", "nidl.likelihoods"),
        ("nidl.hook", "nidl.hooks"),
        ("NIDL.Losses", "nidl.losses"),
    ],
)
def test_a_group_that_is_no_kind(whole: Any, group: str, meant: str) -> None:
    whole.add("nidl-acme", {"mine": "acme:T"}, group=group, modules={"acme": CLASS})
    problem = only(whole, "no-kind")
    assert problem["text"] == f"nidl-acme names 'mine' under {group!r}, which is no kind"
    assert problem["remedy"] == f"Its author should name it under {meant}."


@pytest.mark.parametrize("target", ["acme", "acme:", ":T", "not a target!", ".acme:T", "acme:T:U"])
def test_a_target_that_is_not_of_the_form(whole: Any, target: str) -> None:
    whole.add("nidl-acme", {"mine": target}, modules={"acme": CLASS})
    assert f"nidl-acme:mine leads to {target!r}" in only(whole, "malformed")["text"]


def test_a_name_that_cannot_be_typed_everywhere(whole: Any) -> None:
    whole.add("nidl-acme", {"my name": "acme:T"}, modules={"acme": CLASS})
    assert only(whole, "odd-name")["text"] == (
        "nidl-acme:my name has a name with a colon or a blank"
    )


def test_metadata_that_cannot_be_read(whole: Any) -> None:
    info = whole.add("nidl-acme", {"mine": "acme:T"})
    (info / "entry_points.txt").write_bytes(b"[nidl.encoders]\n\xff\xfe = bad:T\n")
    problem = only(whole, "damaged")
    assert problem["about"] == "nidl_acme"
    assert str(info) in problem["text"]
    assert "UnicodeDecodeError" in problem["text"]


def test_an_empty_leftover_of_another_version(whole: Any) -> None:
    whole.add("nidl-acme", {"mine": "acme:T"}, modules={"acme": CLASS})
    leftover = whole.info("nidl-acme", "0.9")
    leftover.mkdir()
    assert only(whole, "leftover")["text"].startswith(f"{leftover} is an empty leftover")


def test_what_the_variable_switches_off_is_a_note(whole: Any) -> None:
    whole.add("nidl-acme", {"mine": "acme:T", "other": "acme:T"}, modules={"acme": CLASS})
    report = whole.ask(EXAMINE, NIDL_DISABLE_PLUGINS="nidl-acme:mine,nidl-acne")
    assert report["problems"] == []
    assert [note["text"] for note in report["notes"]] == [
        "NIDL_DISABLE_PLUGINS switches off mine of nidl-acme",
        "NIDL_DISABLE_PLUGINS names 'nidl-acne', and nothing is installed by that name",
    ]
    statuses = {c["name"]: c["status"] for c in report["distributions"][0]["components"]}
    assert statuses == {"mine": "disabled", "other": "ok"}


def test_faults_that_the_process_has_met_are_told(whole: Any) -> None:
    whole.add("nidl-acme", {"mine": "acme:T"}, modules={"acme": "raise RuntimeError('no key')"})
    code = """
    import json
    from nidl_core.doctor import examine
    from nidl_core.registry import Registry, encoders
    encoders.interface = "abc:ABC"
    try:
        encoders.get("mine")
    except LookupError:
        pass
    print(json.dumps(examine()["problems"]))
    """
    (problem,) = whole.ask(code)
    assert (problem["what"], problem["about"]) == ("broken", "nidl-acme")
    assert "no key" in problem["text"]


def test_a_core_that_is_not_the_installed_one(whole: Any, tmp_path: Path) -> None:
    clone = tmp_path / "clone" / "nidl_core"
    clone.mkdir(parents=True)
    for path in (whole.bare / "nidl_core").resolve().glob("*.py"):
        (clone / path.name).write_text(path.read_text())
    found = whole.ask(f"import sys\nsys.path.insert(0, {str(clone.parent)!r})\n{EXAMINE}")
    (problem,) = found["problems"]
    assert problem["what"] == "shadowed"
    assert problem["text"].startswith(f"nidl_core is imported from {clone}, not from ")


# Editable installs -------------------------------------------------------------------------------

PYPROJECT = """
[project]
name = "nidl-acme"
version = "{version}"

[project.entry-points."nidl.encoders"]
{points}

[project.entry-points."console_scripts"]
acme = "acme:main"
"""


def editable(site: Any, tmp_path: Path, points: str, version: str = "1.0") -> Path:
    source = tmp_path / "a source"  # a blank, for the sake of the URL
    source.mkdir()
    (source / "pyproject.toml").write_text(PYPROJECT.format(points=points, version=version))
    info = site.add("nidl-acme", {"mine": "acme:T"}, modules={"acme": CLASS})
    url = {"url": source.as_uri(), "dir_info": {"editable": True}}
    (info / "direct_url.json").write_text(json.dumps(url))
    return source


def test_an_editable_install_that_is_up_to_date(whole: Any, tmp_path: Path) -> None:
    source = editable(whole, tmp_path, 'mine = "acme:T"', version="1.0.0")
    report = whole.ask(EXAMINE)
    assert report["problems"] == []
    assert report["distributions"][0]["editable"] is True
    assert report["distributions"][0]["source"] == str(source)


@pytest.mark.parametrize(
    ("points", "version", "text"),
    [
        (
            'mine = "acme:T"\nnew = "acme:N"',
            "1.0",
            "encoders 'new' is acme:N, installed not at all",
        ),
        ("", "1.0", "encoders 'mine' is not there, installed acme:T"),
        ('mine = "acme:U"', "1.0", "encoders 'mine' is acme:U, installed acme:T"),
        ('mine = "acme:T"', "1.1", "the version is 1.1, installed 1.0"),
    ],
)
def test_an_editable_install_whose_source_has_changed(
    whole: Any, tmp_path: Path, points: str, version: str, text: str
) -> None:
    source = editable(whole, tmp_path, points, version)
    problem = only(whole, "stale")
    assert problem["text"] == (
        f"nidl-acme is installed editable, and its source {source} has changed: {text}"
    )
    assert problem["remedy"] == f"pip install --no-deps -e '{source}'"


def test_an_editable_install_whose_source_has_gone(whole: Any, tmp_path: Path) -> None:
    source = editable(whole, tmp_path, "")
    (source / "pyproject.toml").unlink()
    assert problems(whole) == []  # set up in another way
    source.rmdir()
    assert only(whole, "stale")["text"] == (
        f"nidl-acme is installed editable from {source}, which is gone"
    )


def test_a_source_that_cannot_be_read_is_a_note(whole: Any, tmp_path: Path) -> None:
    source = editable(whole, tmp_path, "")
    (source / "pyproject.toml").write_text("[project")
    report = whole.ask(EXAMINE)
    assert report["problems"] == []
    assert [note["what"] for note in report["notes"]] == ["not-compared"]


@pytest.mark.parametrize(
    ("content", "source"),
    [
        ("", None),
        ("[]", None),
        ("{", None),
        ('{"url": "https://x.org/a.whl"}', "https://x.org/a.whl"),
        ('{"url": "file:///a", "dir_info": {}}', "file:///a"),
        ('{"url": "file:///a", "dir_info": []}', None),
    ],
)
def test_any_other_direct_url_is_no_editable_install(
    whole: Any, content: str, source: str | None
) -> None:
    info = whole.add("nidl-acme", {"mine": "acme:T"}, modules={"acme": CLASS})
    (info / "direct_url.json").write_text(content)
    report = whole.ask(EXAMINE)
    assert report["problems"] == []
    assert report["distributions"][0]["editable"] is False
    assert report["distributions"][0]["source"] == source
