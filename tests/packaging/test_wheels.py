"""What is in the wheels, and what is not."""

from __future__ import annotations

import configparser
import json
import sys
import zipfile
from email import message_from_string
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECTS = [ROOT / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))]


def declared(pyproject: Path) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    return project


@pytest.fixture(params=PROJECTS, ids=lambda path: declared(path)["name"])
def project(request: pytest.FixtureRequest) -> dict[str, Any]:
    return declared(request.param)


@pytest.fixture
def wheel(project: dict[str, Any], wheels: dict[str, Path]) -> zipfile.ZipFile:
    with zipfile.ZipFile(wheels[project["name"]]) as opened:
        yield opened


def info(wheel: zipfile.ZipFile, name: str) -> str:
    """The text of a file in the wheel's dist-info."""
    (path,) = [n for n in wheel.namelist() if n.split("/", 1)[1] == name and ".dist-info/" in n]
    return wheel.read(path).decode()


def test_a_wheel_holds_one_package_and_nothing_beside_it(project, wheel):
    package = project["name"].replace("-", "_")
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {package, f"{package}-{project['version']}.dist-info"}
    assert not [n for n in wheel.namelist() if "/tests/" in n or n.endswith((".pyc", ".orig"))]


def test_a_wheel_holds_every_module_of_its_package(project, wheel):
    package = project["name"].replace("-", "_")
    home = ROOT if package == "nidl_core" else ROOT / "plugins" / project["name"] / "src"
    sources = {path.relative_to(home).as_posix() for path in (home / package).rglob("*.py")}
    assert sources == {name for name in wheel.namelist() if name.endswith(".py")}


def test_a_wheel_says_that_it_is_typed(project, wheel):
    assert f"{project['name'].replace('-', '_')}/py.typed" in wheel.namelist()


def test_a_wheel_holds_the_licence(wheel):
    assert info(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_the_entry_points_are_those_of_the_pyproject(project, wheel):
    parser = configparser.ConfigParser(delimiters="=")
    parser.read_string(info(wheel, "entry_points.txt"))
    written = {group: dict(parser[group]) for group in parser.sections()}
    expected = dict(project["entry-points"])
    if "scripts" in project:
        expected["console_scripts"] = project["scripts"]
    assert written == expected


def test_the_metadata_have_the_version_and_the_dependencies(project, wheel):
    metadata = message_from_string(info(wheel, "METADATA"))
    assert metadata["Version"] == project["version"]
    plain = [r for r in metadata.get_all("Requires-Dist") if "extra ==" not in r]
    assert len(plain) == len(project["dependencies"])


def test_the_core_holds_the_catalogue(wheels):
    with zipfile.ZipFile(wheels["nidl-core"]) as opened:
        catalogue = json.loads(opened.read("nidl_core/_catalog.json"))
    assert catalogue["estimators"]["vae"] == "nidl-vae"


def test_the_wheel_of_the_sdist_is_the_wheel_of_the_sources(project, wheels, wheels_of_sdists):
    name = project["name"]
    assert wheels_of_sdists[name].name == wheels[name].name
    assert wheels_of_sdists[name].read_bytes() == wheels[name].read_bytes()
