"""What is installed changes, or is damaged, while the process runs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from nidl_core.errors import ComponentError, UnknownComponent
from nidl_core.registry import Registry

CLASS = "from toy_interface import Base\nclass T(Base):\n    def forward(self): ...\n"


def names(registry: Registry[Any]) -> list[str]:
    registry.refresh()
    return registry.names()


def test_installed_in_mid_session_is_found_at_the_next_miss(site: Any, registry: Any) -> None:
    site.add("first", {"a": "first:T"}, modules={"first": CLASS})
    assert registry.get("a").__module__ == "first"
    with pytest.raises(UnknownComponent):
        registry.get("b")
    site.add("second", {"b": "second:T"}, modules={"second": CLASS})
    assert registry.get("b").__module__ == "second"
    assert registry.get("second:b").__module__ == "second"
    assert registry.names() == ["a", "b"]


def test_installed_in_a_folder_that_joins_the_path_later(
    site: Any, registry: Any, tmp_path: Path
) -> None:
    with pytest.raises(UnknownComponent):
        registry.get("b")
    late = tmp_path / "late"
    site.add("second", {"b": "second:T"}, folder=late, modules={"second": CLASS})
    sys.path.insert(0, str(late))  # the fixture's own list
    assert registry.get("b").__module__ == "second"


def test_removed_in_mid_session_is_unknown_after_a_refresh(site: Any, registry: Any) -> None:
    site.add("first", {"a": "first:T"}, modules={"first": CLASS})
    registry.get("a")
    site.remove("first")
    assert names(registry) == []
    with pytest.raises(UnknownComponent):
        registry.get("a")


def test_removed_between_the_scan_and_the_first_get_is_a_component_error(
    site: Any, registry: Registry[Any]
) -> None:
    site.add("first", {"a": "first:T"}, modules={"first": CLASS})
    assert names(registry) == ["a"]
    site.remove("first")
    (site.folder / "first.py").unlink()
    with pytest.raises(ComponentError):
        registry.get("a")


def test_upgraded_in_mid_session_shows_its_new_version_after_a_refresh(
    site: Any, registry: Any
) -> None:
    site.add("first", {"a": "first:T"})
    assert names(registry) == ["a"]
    site.remove("first")
    site.add("first", {"a": "first:T", "b": "first:T"}, version="1.1")
    assert names(registry) == ["a", "b"]
    assert registry.entry("a").version == "1.1"


def test_a_dist_info_without_metadata_is_ignored(site: Any, registry: Registry[Any]) -> None:
    site.add("good", {"good": "good:T"}, modules={"good": CLASS})
    site.info("empty").mkdir()
    (site.add("stale", {"stale": "stale:T"}) / "METADATA").unlink()
    (site.add("blank", {"blank": "blank:T"}) / "METADATA").write_text("")
    assert names(registry) == ["good"]
    assert registry.get("good").__name__ == "T"


def test_a_distribution_without_a_version_is_listed(site: Any, registry: Registry[Any]) -> None:
    info = site.add("acme", {"t": "acme:T"}, modules={"acme": CLASS})
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\n")
    assert names(registry) == ["t"]
    assert registry.entry("t").version == "?"
    assert registry.get("t").__name__ == "T"


def test_an_empty_leftover_of_an_older_version_does_not_hide_the_newer_one(
    site: Any, registry: Registry[Any], tmp_path: Path
) -> None:
    leftover = tmp_path / "first_on_the_path"
    site.info("acme", "0.9", leftover).mkdir(parents=True)
    sys.path.insert(0, str(leftover))
    site.add("acme", {"t": "acme:T"}, modules={"acme": CLASS})
    assert names(registry) == ["t"]
    assert registry.get("t").__name__ == "T"


@pytest.mark.parametrize(
    "content",
    [
        b"[nidl.encoders]\nno equals sign\n",
        b"[nidl.encoders]\n= nameless:T\n",
        b"[nidl.encoders\nbad = bad:T\n",
        b"no section = bad:T\n",
        b"[nidl.encoders]\n\xff\xfe = bad:T\n",
        b"\x00\x01\x02",
        b"",
    ],
    ids=["no equals sign", "no name", "open section", "no section", "not UTF-8", "binary", "empty"],
)
def test_a_damaged_entry_point_file_hides_no_other_distribution(
    site: Any, registry: Registry[Any], content: bytes
) -> None:
    site.add("good", {"good": "good:T"}, modules={"good": CLASS})
    (site.add("bad") / "entry_points.txt").write_bytes(content)
    assert "good" in names(registry)
    assert registry.get("good").__name__ == "T"


def test_an_entry_point_group_that_nobody_fills_is_empty(site: Any, registry: Any) -> None:
    site.add("acme", {"t": "acme:T"}, group="nidl.gadgets")
    assert names(registry) == []


def test_a_zip_on_the_path_is_a_plugin_too(site: Any, registry: Any, tmp_path: Path) -> None:
    folder = tmp_path / "zipped"
    site.add("acme", {"t": "acme_zip:T"}, folder=folder, modules={"acme_zip": CLASS})
    archive = shutil.make_archive(str(tmp_path / "plugin"), "zip", folder)
    sys.path.insert(0, archive)
    assert names(registry) == ["t"]
    assert registry.get("t").__module__ == "acme_zip"
