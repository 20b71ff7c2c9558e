"""From a name to an entry: unknown, ambiguous, in full, twice on the path."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import nidl_core
from nidl_core.errors import AmbiguousComponent, ComponentError, NidlError, UnknownComponent

TWINS = "import nidl_core, json\ntry:\n    nidl_core.encoders.get('twin')\nexcept nidl_core.NidlError as err:\n    print(json.dumps([type(err).__name__, err.ids, str(err)]))"


def unknown(name: str, kind: str = "encoders") -> UnknownComponent:
    with pytest.raises(UnknownComponent) as caught:
        getattr(nidl_core, kind).get(name)
    assert (caught.value.kind, caught.value.name) == (kind, name)
    return caught.value


@pytest.fixture
def installed(site: Any) -> None:
    """The backbones' encoders, as metadata alone."""
    site.add("nidl-backbones", {n: f"nidl_backbones:{n}" for n in ("cnn2d", "cnn3d", "mlp")})
    nidl_core.encoders.refresh()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cnn3", "Did you mean 'cnn3d'? Installed: cnn2d, cnn3d, mlp."),
        ("cnn4d", "Did you mean 'cnn3d'? Installed: cnn2d, cnn3d, mlp."),
        ("transformer", "Installed: cnn2d, cnn3d, mlp."),
        ("nidl-monai:mlp", "Did you mean 'mlp'? Installed: cnn2d, cnn3d, mlp."),
        ("nidl-backbone:cnn3d", "Did you mean 'cnn3d'? Installed: cnn2d, cnn3d, mlp."),
        ("CNN3D", "Did you mean 'cnn3d'? Installed: cnn2d, cnn3d, mlp."),
        ("MLP", "Did you mean 'mlp'? Installed: cnn2d, cnn3d, mlp."),
        ("", "Installed: cnn2d, cnn3d, mlp."),
    ],
)
def test_unknown_says_the_nearest_match_and_what_is_installed(name: str, text: str) -> None:
    error = unknown(name)
    assert str(error) == f"no encoder named {name!r}. {text}"
    assert error.installed == ["cnn2d", "cnn3d", "mlp"]
    assert error.providers == []


@pytest.mark.usefixtures("installed")
def test_the_nearest_match_prefers_what_is_installed(site: Any) -> None:
    site.remove("nidl-backbones")
    site.add("acme", {"cnn2d": "acme:C"})
    error = unknown("cnn_d")
    assert error.close == ["cnn2d"]
    assert str(error) == "no encoder named 'cnn_d'. Did you mean 'cnn2d'? Installed: cnn2d."


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        (
            "encoders",
            "cnn3d",
            "no encoder named 'cnn3d' is installed. It comes with nidl-backbones: pip install nidl-backbones",
        ),
        (
            "estimators",
            "vae",
            "no estimator named 'vae' is installed. It comes with nidl-vae: pip install nidl-vae",
        ),
        (
            "losses",
            "beta_vae",
            "no loss named 'beta_vae' is installed. It comes with nidl-vae: pip install nidl-vae",
        ),
        (
            "likelihoods",
            "nidl-likelihoods:normal",
            "no likelihood named 'nidl-likelihoods:normal' is installed. It comes with "
            "nidl-likelihoods: pip install nidl-likelihoods",
        ),
        (
            "decoders",
            "cnn3",
            "no decoder named 'cnn3'. Did you mean 'cnn3d'? It comes with nidl-backbones: pip install "
            "nidl-backbones",
        ),
        ("encoders", "transformer", "no encoder named 'transformer'. Installed: none."),
    ],
)
def test_unknown_says_what_to_install(kind: str, name: str, text: str) -> None:
    assert str(unknown(name, kind)) == text


@pytest.mark.usefixtures("installed")
def test_a_name_of_another_kind_is_said_so(site: Any) -> None:
    site.add("acme", {"gauss": "acme:G"}, group="nidl.likelihoods")
    assert str(unknown("gauss")) == (
        "no encoder named 'gauss'. Installed: cnn2d, cnn3d, mlp. ('gauss' is a likelihood.)"
    )


def test_unknown_is_a_lookup_error(site: Any) -> None:
    assert isinstance(unknown("nope"), (LookupError, ComponentError))
    assert issubclass(ComponentError, (NidlError, LookupError))


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", [None, 3, ["mlp"], b"mlp"], ids=repr)
def test_a_name_that_is_no_str_is_a_nidl_error(name: Any) -> None:
    with pytest.raises(NidlError, match="name"):
        nidl_core.encoders.get(name)


@pytest.mark.parametrize("reverse", [False, True], ids=["in order", "reversed"])
def test_ambiguous_whatever_the_path_and_hash_seed(
    site: Any, tmp_path: Path, reverse: bool
) -> None:
    for name in ("nidl-a", "nidl-b"):
        site.add(name, {"twin": f"{name[-1]}:T"}, folder=tmp_path / name)
    path = sorted((tmp_path / "nidl-a", tmp_path / "nidl-b"), reverse=reverse)
    answers = {
        json.dumps(site.ask(TWINS, path=path, PYTHONHASHSEED=str(seed))) for seed in range(12)
    }
    expected = [
        "AmbiguousComponent",
        ["nidl-a:twin", "nidl-b:twin"],
        "2 installed distributions provide the encoder 'twin'. "
        "Say which one: 'nidl-a:twin' or 'nidl-b:twin'.",
    ]
    assert answers == {json.dumps(expected)}


def test_the_full_id_of_an_ambiguous_name_works(site: Any, registry: Any) -> None:
    for name in ("a", "b"):
        source = "from toy_interface import Base\nclass T(Base):\n    def forward(self): ..."
        site.add(f"nidl-{name}", {"twin": f"twin_{name}:T"}, modules={f"twin_{name}": source})
    registry.refresh()
    with pytest.raises(AmbiguousComponent) as caught:
        registry.get("twin")
    classes = [registry.get(full_id) for full_id in caught.value.ids]
    assert [cls.__module__ for cls in classes] == ["twin_a", "twin_b"]
    assert registry.names() == ["twin"]
    assert [registry.entry_of(cls).id for cls in classes] == ["nidl-a:twin", "nidl-b:twin"]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("spelling", ["nidl_backbones", "NIDL-Backbones", "nidl.backbones"])
def test_a_full_id_takes_the_distribution_as_pip_takes_it(spelling: str) -> None:
    assert nidl_core.encoders.entry(f"{spelling}:mlp").id == "nidl-backbones:mlp"


@pytest.mark.parametrize(
    ("asked", "there"), [("student-t", "student_t"), ("Student_T", "student_t"), ("a.b", "a-b")]
)
def test_names_that_differ_in_case_or_separators_are_two_and_each_suggests_the_other(
    site: Any, asked: str, there: str
) -> None:
    site.add("acme", {there: "acme:A", "unrelated": "acme:A"})
    assert unknown(asked).close == [there]
    site.add("other", {asked: "other:A"})
    nidl_core.encoders.refresh()
    assert [nidl_core.encoders.entry(n).distribution for n in (asked, there)] == ["other", "acme"]


@pytest.mark.parametrize("name", ["with space", "a:b", "ünï", "[x", "x" * 300, "-", "#"])
def test_a_strange_name_can_be_asked_for_and_hides_no_other(site: Any, name: str) -> None:
    site.add("acme", {name: "acme:A", "good": "acme:A"})
    site.add("other", {"fine": "other:A"})
    nidl_core.encoders.refresh()
    assert "fine" in nidl_core.available("encoders")
    if name in nidl_core.available(
        "encoders"
    ):  # what is no entry point's name is read as a comment
        assert nidl_core.encoders.entry(name).id == f"acme:{name}"
        assert nidl_core.encoders.entry(f"acme:{name}").name == name


def test_two_names_for_one_class_are_an_alias(site: Any, registry: Any) -> None:
    source = "from toy_interface import Base\nclass T(Base):\n    def forward(self): ..."
    site.add("acme", {"new": "acme:T", "old": "acme:T"}, modules={"acme": source})
    assert registry.get("new") is registry.get("old")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("acme", "1.0"), ("acme", "1.0")),
        (("acme", "2.0"), ("acme", "1.0")),
        (("acme", "1.0"), ("Acme", "2.0")),
        (("nidl-acme", "1.0"), ("nidl_acme", "1.0")),
        (("nidl.acme", "1.0"), ("nidl-Acme", "1.0")),
    ],
)
def test_a_distribution_twice_on_the_path_counts_once_and_the_first_one_wins(
    site: Any, tmp_path: Path, first: tuple[str, str], second: tuple[str, str]
) -> None:
    folders = [tmp_path / "lib", tmp_path / "lib64"]
    for (name, version), folder in zip((first, second), folders, strict=True):
        site.add(name, {"mine": "acme:M"}, version=version, folder=folder)
    code = "import nidl_core, json\nprint(json.dumps([[e.distribution, e.version] for e in nidl_core.encoders.entries()]))"
    assert site.ask(code, path=folders) == [list(first)]
    assert site.ask(code, path=[*folders, folders[0]]) == [list(first)]


@pytest.mark.parametrize("order", [1, -1], ids=["in order", "reversed"])
def test_the_newest_of_two_in_one_folder_counts_whatever_order_the_disk_gives(
    site: Any, monkeypatch: pytest.MonkeyPatch, order: int
) -> None:
    for version in ("0.9", "0.10"):  # an upgrade that did not remove what it replaced
        site.add("acme", {f"of_{version}": "acme:M"}, version=version)
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: sorted(listed(path))[::order])
    nidl_core.encoders.refresh()
    assert [(e.name, e.version) for e in nidl_core.encoders.entries()] == [("of_0.10", "0.10")]


def test_an_egg_beside_a_wheel_does_not_count(site: Any) -> None:
    wheel = site.add("acme", {"mine": "acme:M"})
    egg = site.folder / "acme-2.0.egg-info"
    egg.mkdir()
    (egg / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 2.0\n")
    points = (wheel / "entry_points.txt").read_text()
    (egg / "entry_points.txt").write_text(f"{points}stale = acme:M\n")
    nidl_core.encoders.refresh()
    assert [(e.id, e.version) for e in nidl_core.encoders.entries()] == [("acme:mine", "1.0")]
    shutil.rmtree(wheel)
    nidl_core.encoders.refresh()
    assert [e.version for e in nidl_core.encoders.entries()] == ["2.0", "2.0"]


def test_listing_and_entry_agree(site: Any) -> None:
    site.add("acme", {"a": "acme:A", "b": "acme:B"})
    nidl_core.encoders.refresh()
    for name in nidl_core.available("encoders"):
        entry = nidl_core.encoders.entry(name)
        assert entry == nidl_core.encoders.entry(entry.id)
        assert (entry.kind, entry.name, entry.id) == ("encoders", name, f"acme:{name}")


@pytest.mark.parametrize(
    "group", ["nidl.encoder", "nidl_core.encoders", "nidl-encoders", "NIDL.encoders", "nidl.enc"]
)
def test_a_misspelt_group_is_named_where_its_component_is_missed(site: Any, group: str) -> None:
    site.add("acme", {"mine": "acme:T"}, group=group, modules={"acme": ""})
    with pytest.raises(UnknownComponent) as caught:
        nidl_core.encoders.get("mine")
    assert f"(acme names 'mine' under '{group}', which is no kind.)" in str(caught.value)
