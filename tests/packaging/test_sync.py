"""tools/sync.py sees what does not fit together."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VAE = "plugins/nidl-vae/pyproject.toml"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what the tool reads."""
    sources_only = shutil.ignore_patterns(".*", "__pycache__")
    for folder in ("nidl_core", "plugins", "tools"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=sources_only)
    for file in ("pyproject.toml", "CITATION.cff"):
        shutil.copy(ROOT / file, tmp_path / file)
    return tmp_path


def sync(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(copy / "tools" / "sync.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_repository_is_in_step(copy):
    result = sync(copy, "--check")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("file", "old", "new", "fault"),
    [
        (VAE, 'version = "0.1.0"', 'version = "0.1.1"', "version 0.1.1, nidl-core has 0.1.0"),
        (VAE, "nidl-core>=0.1.0,<0.2", "nidl-core>=0.1.0", "is not a range"),
        (VAE, "nidl-core>=0.1.0,<0.2", "nidl-core>=0.1.0,<0.3", "should end in <0.2"),
        (VAE, "nidl-core>=0.1.0,<0.2", "nidl-core>=0.1.1,<0.2", "does not admit 0.1.0"),
        (VAE, '"nidl-core>=0.1.0,<0.2",', "", "does not depend on a range of nidl-core"),
        (VAE, "nidl_vae.vae:VAE", "nidl_vae.vae:VEA", "no file here defines"),
        (VAE, 'estimators"]', 'estimators"]\nvae2 = "nidl_vae.vae:VAE"', "out of date"),
        (VAE, '"nidl.losses"]', '"nidl.encoders"]\nmlp = "x:Y"', "both provide 'mlp' in encoders"),
        ("pyproject.toml", '"nidl-vae>=0.1.0,<0.2",', "", "the extra 'all' lists"),
        ("nidl_core/_catalog.json", '"nidl-vae"', '"nidl-eva"', "out of date"),
        ("CITATION.cff", "version: 0.1.0", "version: 0.1.1", "version is not 0.1.0"),
    ],
)
def test_a_fault_is_named(copy, file, old, new, fault):
    text = (copy / file).read_text(encoding="utf-8")
    assert old in text
    (copy / file).write_text(text.replace(old, new), encoding="utf-8")
    result = sync(copy, "--check")
    assert result.returncode == 1
    assert fault in result.stderr


def test_set_version_leaves_everything_in_step(copy):
    assert sync(copy, "--set-version", "0.2.1").returncode == 0
    assert sync(copy, "--check").returncode == 0
    text = (copy / VAE).read_text(encoding="utf-8")
    assert 'version = "0.2.1"' in text
    assert '"nidl-core>=0.2.0,<0.3"' in text


def test_a_version_has_three_numbers(copy):
    result = sync(copy, "--set-version", "0.2")
    assert result.returncode == 1
    assert "X.Y.Z" in result.stderr
