"""`nidl new-plugin`, all the way: written, built, installed, proven, used by name. One of each kind.

Everything happens in a fresh environment that sees nothing of nidl's but wheels.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NAMES = {
    "likelihood": "student_t",
    "encoder": "my_encoder",
    "decoder": "my_decoder",
    "loss": "my_loss",
    "estimator": "my_estimator",
    "hooks": "my_facts",
}
DISTRIBUTIONS = [f"nidl-{name.replace('_', '-')}" for name in NAMES.values()]


@pytest.fixture(scope="module")
def plugins(fresh: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of scaffolded distributions; their wheels are installed in `fresh`."""
    folder = tmp_path_factory.mktemp("plugins")
    fresh.run("pip", "install", "nidl-core[testing]", "nidl-vae")
    for kind, name in NAMES.items():
        fresh.run("nidl", "new-plugin", kind, name, "--into", folder)
    for distribution in DISTRIBUTIONS:
        build = ("python", "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "dist")
        fresh.run(*build, cwd=folder / distribution)
    wanted = [f"{distribution}[test]" for distribution in DISTRIBUTIONS]
    fresh.run("pip", "install", "--find-links", folder / "dist", *wanted)
    return folder


def test_what_is_written_has_no_fault_of_style(plugins):
    for command in (["check"], ["format", "--check"]):
        result = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", str(plugins)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout


def test_all_their_own_tests_are_green_under_their_own_settings(fresh, plugins):
    files = [plugins / distribution / "pyproject.toml" for distribution in DISTRIBUTIONS]
    settings = {file.read_text(encoding="utf-8").partition("[tool.pytest")[2] for file in files}
    assert len(settings) == 1  # so that one run can be that of all
    told = fresh.run(
        *("python", "-m", "pytest", "-v", "-p", "no:cacheprovider"),
        *("-c", files[0], "--rootdir", plugins),
        *(plugins / distribution / "tests" for distribution in DISTRIBUTIONS),
        cwd=plugins,
    )
    for distribution in DISTRIBUTIONS:
        passed = re.findall(rf"^{distribution}/tests/(\w+)\.py::\S+ PASSED", told, re.MULTILINE)
        assert "test_behaviour" in passed
        assert passed.count("test_conformance") >= (0 if distribution == "nidl-my-facts" else 20)


def test_the_installed_packages_are_tested_and_not_the_folders(fresh, plugins):
    code = "import nidl_student_t; print(nidl_student_t.__file__)"
    path = Path(fresh.run("python", "-c", code, cwd=plugins / "nidl-student-t").strip())
    assert fresh.folder in path.parents


def test_they_make_a_vae_by_name_that_is_trained_saved_and_loaded(fresh, plugins):
    answer = fresh.ask(
        """
        import json, numpy as np, nidl_core as nidl, zipfile
        x = np.random.default_rng(0).normal(size=(32, 1, 6, 5)).astype("float32")
        vae = nidl.build(
            "vae", encoder="my_encoder", decoder="my_decoder", loss="my_loss", latent_dim=2,
            likelihood={"name": "student_t", "params": {"df": 3.0}}, max_epochs=2, random_state=0,
            stochastic_transform=False, accelerator="cpu",
        )
        before = vae.fit(x).state_dict()["encoder.layers.1.weight"].clone()
        vae.fit(x[:16])
        moved = not before.equal(vae.state_dict()["encoder.layers.1.weight"])
        vae.save("model.nidl")
        again = nidl.load("model.nidl")
        header = json.loads(zipfile.ZipFile("model.nidl").read("nidl.json"))
        print(json.dumps({
            "moved": moved,
            "same": bool((again.transform(x) == vae.transform(x)).all()),
            "likelihood": repr(again.likelihood),
            "used": sorted(c["id"] for c in header["components"]),
            "counted": header["facts"]["my_facts"]["trained_parameters"],
            "parameters": sum(p.numel() for p in vae.parameters()),
        }))
        """
    )
    assert answer["moved"]
    assert answer["same"]
    assert answer["likelihood"] == "StudentT(df=3.0, scale=1.0)"
    assert {"nidl-student-t:student_t", "nidl-my-encoder:my_encoder"} <= set(answer["used"])
    assert answer["counted"] == answer["parameters"]


def test_the_estimator_is_built_by_name_and_transforms(fresh, plugins):
    shape = fresh.ask(
        """
        import json, numpy as np, nidl_core as nidl
        model = nidl.build("my_estimator", latent_dim=3, max_epochs=1, accelerator="cpu", random_state=0)
        print(json.dumps(model.fit_transform(np.ones((8, 2, 5), "float32")).shape))
        """
    )
    assert shape == [8, 3]


def test_doctor_finds_nothing_to_complain_of(fresh, plugins):
    found = json.loads(fresh.run("nidl", "doctor", "--load", "--json"))
    assert found["problems"] == []


def test_the_name_is_then_taken(fresh, plugins, tmp_path):
    result = fresh.start("nidl", "new-plugin", "likelihood", "student_t", "--into", tmp_path)
    assert result.returncode == 1
    assert "taken by 'nidl-student-t:student_t'" in result.stderr
    assert list(tmp_path.iterdir()) == []
