"""A hermetic world of installed distributions: what a test writes, the core, pluggy and packaging."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import nidl_core
from nidl_core.registry import Registry

BARE = {"nidl-core": "nidl_core", "pluggy": "pluggy", "packaging": "packaging"}
if sys.version_info < (3, 11):
    BARE["tomli"] = "tomli"
BASE = """
import abc

class Base(abc.ABC):
    @abc.abstractmethod
    def forward(self): ...

class Other(abc.ABC):
    pass
"""
GOOD = """
from toy_interface import Base

class Good(Base):
    def __init__(self, width=1):
        self.width = width

    def forward(self): ...
"""


class Site:
    """A folder that stands for site-packages: distributions are written, not built, so it is fast."""

    def __init__(self, folder: Path, bare: Path) -> None:
        self.folder = folder
        self.bare = bare
        folder.mkdir()

    def add(
        self,
        distribution: str,
        points: Mapping[str, str] = {},
        *,
        group: str = "nidl.encoders",
        version: str = "1.0",
        requires: Sequence[str] = (),
        modules: Mapping[str, str] = {},
        folder: Path | None = None,
    ) -> Path:
        """Install a distribution: its metadata, entry points (name -> target) and modules."""
        info = self.info(distribution, version, folder)
        info.mkdir(parents=True)
        metadata = [f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}"]
        metadata += [f"Requires-Dist: {text}" for text in requires]
        info.joinpath("METADATA").write_text("\n".join(metadata) + "\n", encoding="utf-8")
        lines = [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
        info.joinpath("entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        for name, source in modules.items():
            self.module(name, source, info.parent)
        return info

    def info(self, distribution: str, version: str = "1.0", folder: Path | None = None) -> Path:
        """The .dist-info folder of a distribution."""
        return (folder or self.folder) / f"{distribution.replace('-', '_')}-{version}.dist-info"

    def module(self, name: str, source: str, folder: Path | None = None) -> None:
        path = (folder or self.folder) / f"{name}.py"
        path.write_text(textwrap.dedent(source), encoding="utf-8")

    def remove(self, distribution: str) -> None:
        shutil.rmtree(self.info(distribution))

    def run(
        self, code: str, *, path: Sequence[Path] | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `code` in a fresh process that sees this folder (or those of `path`) and the core."""
        folders = [*(path or [self.folder]), self.bare]
        return subprocess.run(
            [sys.executable, "-S", "-W", "error", "-c", textwrap.dedent(code)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders)), **env},
            cwd=self.bare,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def ask(self, code: str, *, path: Sequence[Path] | None = None, **env: str) -> Any:
        """As `run`; the process answers with one JSON value in its last line."""
        result = self.run(code, path=path, **env)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed nidl-core and the little that it needs for what is tested here."""
    folder = tmp_path_factory.mktemp("bare")
    for name, package in BARE.items():
        files = importlib.metadata.distribution(name).files or []
        info = next(Path(str(f.locate())).parent for f in files if f.name == "METADATA")
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        for source in (info, Path(spec.origin).parent):
            (folder / source.name).symlink_to(source.resolve())
    return folder


@pytest.fixture
def site(tmp_path: Path, bare: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A `Site` that this process sees too, in place of all that is really installed."""
    site = Site(tmp_path / "site", bare)
    modules = set(sys.modules)
    # Folders with metadata go; the standard library stays.
    rest = [p for p in sys.path if not any(Path(p).glob("*.dist-info"))]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)
        patch.setattr(sys, "path", [str(site.folder), str(bare), *rest])
        nidl_core.encoders.refresh()
        yield site
    for name in set(sys.modules) - modules:
        if str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]
    importlib.invalidate_caches()
    nidl_core.encoders.refresh()


@pytest.fixture
def whole(site: Site) -> Site:
    """A site where nothing is amiss: all that the core requires is there, as metadata."""
    for text in importlib.metadata.requires("nidl-core") or []:
        requirement = Requirement(text)
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and requirement.name not in BARE:
            site.add(requirement.name, group="none", version="99")
    return site


@pytest.fixture
def registry(site: Site) -> Registry[Any]:
    """Encoders whose interface needs no torch: `toy_interface:Base`."""
    site.module("toy_interface", BASE)
    return Registry("encoders", "toy_interface:Base")
