"""Real distributions, built and installed; and fresh processes that see them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import uv

ROOT = Path(__file__).parents[2]
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
PROJECTS = {"nidl-core": ROOT, **{project.name: project for project in PLUGINS}}
ACME = Path(__file__).parent / "third_party" / "nidl-acme"

PYPROJECT = """
[build-system]
requires = ["hatchling>=1.26"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "0.0.1"
dependencies = ["{core}"]

[project.entry-points."nidl.encoders"]
{entry}

[tool.hatch.build.targets.wheel]
packages = ["{module}"]
"""
ENCODER = """
from nidl_core import Encoder

class {name}(Encoder):
    out_features = 1

    def __init__(self, input_shape):
        super().__init__()

    def forward(self, x):
        return x.flatten(1)[:, :1]
"""


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels of this repository's distributions, by name."""
    folder = tmp_path_factory.mktemp("wheels")
    return {name: build(project, folder / name) for name, project in PROJECTS.items()}


@pytest.fixture(scope="session")
def wheels_of_sdists(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same, each built from the distribution's sdist."""
    folder = tmp_path_factory.mktemp("sdists")
    built = {}
    for name, project in PROJECTS.items():
        with tarfile.open(build(project, folder / name / "sdist", "sdist")) as packed:
            packed.extractall(folder / name, filter="data")
        (sources,) = folder.glob(f"{name}/nidl_*")
        built[name] = build(sources, folder / name / "wheel")
    return built


@pytest.fixture(scope="session")
def acme(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a real third-party plugin."""
    return build(ACME, tmp_path_factory.mktemp("acme"))


@pytest.fixture(scope="session")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Wheels of plugins that each do something wrong, by name."""
    folder = tmp_path_factory.mktemp("strangers")
    fits = "nidl-core>=0.1.0,<0.2"
    return {
        name: build(write(folder / name, core, entry, source), folder / name / "dist")
        for name, core, entry, source in [
            ("nidl-twin-a", fits, 'twin = "nidl_twin_a:TwinA"', ENCODER.format(name="TwinA")),
            ("nidl-twin-b", fits, 'twin = "nidl_twin_b:TwinB"', ENCODER.format(name="TwinB")),
            (
                "nidl-raises",
                fits,
                'raises = "nidl_raises:Raises"',
                "raise RuntimeError('no licence key')",
            ),
            ("nidl-noattr", fits, 'noattr = "nidl_noattr:Gone"', "# Gone is gone"),
            (
                "nidl-future",
                "nidl-core>=99",
                'future = "nidl_future:F"',
                "raise AssertionError('imported')",
            ),
        ]
    }


@pytest.fixture(scope="session")
def shared_namespace(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Wheels of two distributions that each put a module into one package without `__init__.py`."""
    folder = tmp_path_factory.mktemp("namespace")
    built = []
    for name in ("deep", "wide"):
        project = folder / f"nidl-{name}"
        package = project / "lab_ns"
        package.mkdir(parents=True)
        package.joinpath(f"{name}.py").write_text(ENCODER.format(name=name.title()))
        entry = f'{name} = "lab_ns.{name}:{name.title()}"'
        text = PYPROJECT.format(name=project.name, core="nidl-core", entry=entry, module="lab_ns")
        project.joinpath("pyproject.toml").write_text(text)
        built.append(build(project, project / "dist"))
    return built


def write(project: Path, core: str, entry: str, source: str) -> Path:
    """The sources of a small distribution, named like its folder, with one entry point."""
    module = project.name.replace("-", "_")
    (project / module).mkdir(parents=True)
    (project / module / "__init__.py").write_text(source, encoding="utf-8")
    text = PYPROJECT.format(name=project.name, core=core, entry=entry, module=module)
    (project / "pyproject.toml").write_text(text, encoding="utf-8")
    return project


def build(project: Path, folder: Path, target: str = "wheel") -> Path:
    """The wheel or sdist of a project, built into an empty folder by this environment's hatchling."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return built


class Site:
    """A folder of installed distributions that fresh processes see beside this environment's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def installer(self, *wheels: Path) -> list[str]:
        """The command that installs wheels here, asking nobody."""
        quiet = ["pip", "install", "--quiet", "--no-deps", "--no-index", "--no-config"]
        return [uv.find_uv_bin(), *quiet, "--target", str(self.folder), *map(str, wheels)]

    def install(self, *wheels: Path) -> None:
        subprocess.run(self.installer(*wheels), check=True, capture_output=True)

    def ask(self, code: str, *arguments: object) -> Any:
        """Run `code` in a fresh process; it answers with one JSON value in its last line."""
        result = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(self.folder)},
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An empty one."""
    folder = tmp_path / "site"
    folder.mkdir()
    return Site(folder)


class Environment:
    """A fresh virtual environment: what this one has, but of nidl's only wheels that are asked for."""

    def __init__(self, folder: Path, wheels: Iterable[Path]) -> None:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True)
        old = [folder / "bin" / "pip", "uninstall", "--yes", "setuptools"]  # with Python <= 3.11
        subprocess.run(old, check=True, capture_output=True)
        self.folder = folder
        (packages,) = folder.glob("lib/python*/site-packages")
        there = {path.name.partition("-")[0] for path in packages.iterdir()}  # pip
        for source in {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}:
            for path in source.iterdir():
                ours = path.suffix == ".pth" or path.name.startswith(("nidl", "__editable__"))
                if not ours and path.name.partition("-")[0] not in there:
                    (packages / path.name).symlink_to(path)
        outer = ("NIDL_", "PIP_", "PYTHONPATH")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(outer)}
        self.variables = {
            **kept,
            "VIRTUAL_ENV": str(folder),
            "PATH": os.pathsep.join([str(folder / "bin"), kept["PATH"]]),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",  # wheels and what is there already: nobody is asked
            "PIP_FIND_LINKS": " ".join(sorted({str(wheel.parent) for wheel in wheels})),
            "PIP_NO_BUILD_ISOLATION": "0",  # pip's way of saying that there is none
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_QUIET": "1",
        }

    def start(self, *command: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command of this environment to its end."""
        return subprocess.run(
            [str(word) for word in command],
            env=self.variables,
            cwd=cwd or self.folder,
            capture_output=True,
            text=True,
            check=False,
        )

    def run(self, *command: object, cwd: Path | None = None) -> str:
        """What a command that must succeed prints."""
        result = self.start(*command, cwd=cwd)
        assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
        return result.stdout

    def ask(self, code: str) -> Any:
        """Run `code`; it answers with one JSON value in its last line."""
        return json.loads(self.run("python", "-c", textwrap.dedent(code)).splitlines()[-1])


@pytest.fixture(scope="module")
def fresh(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """One for the tests of a module. pip finds the wheels of this repository, and installs none yet."""
    return Environment(tmp_path_factory.mktemp("fresh"), wheels.values())
