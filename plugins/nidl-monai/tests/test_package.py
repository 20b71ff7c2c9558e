"""The distribution: names, light imports, what MONAI's import leaves behind, the documents."""

import doctest
import importlib
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import nidl_core as nidl
import nidl_monai
from nidl_monai import MonaiDecoder, MonaiEncoder

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def fresh(code):
    """What the code prints in a fresh interpreter in which warnings are errors."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_names_lead_to_the_classes():
    for group, cls in [("nidl.encoders", MonaiEncoder), ("nidl.decoders", MonaiDecoder)]:
        found = {e.name: e.load() for e in entry_points(group=group) if "monai" in e.value}
        assert found == {"monai": cls}
    assert nidl.encoders.get("monai") is MonaiEncoder


def test_the_package_is_light_and_its_names_are_found_when_asked_for():
    code = "import sys, nidl_monai; print(*{'torch', 'monai', 'nidl_core'} & set(sys.modules))"
    assert fresh(code).split() == []
    with pytest.raises(AttributeError, match="module 'nidl_monai' has no attribute 'Encoder'"):
        nidl_monai.Encoder  # noqa: B018


def test_showing_a_component_does_not_import_monai():
    code = (
        "import sys, nidl_core as nidl\n"
        "for kind in (nidl.encoders, nidl.decoders):\n"
        "    print(len(kind.get('monai').choices()['model']), 'monai' in sys.modules)"
    )
    assert fresh(code).split() == ["33", "False", "3", "False"]


def test_building_a_network_leaves_the_process_as_it_was():
    code = """
import random, signal, sys, warnings
import numpy as np, torch
import nidl_core.estimator
from nidl_monai import MonaiEncoder

def state():
    return [
        random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(),
        torch.get_num_threads(), torch.get_num_interop_threads(), torch.get_default_dtype(),
        torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark,
        list(warnings.filters), warnings.showwarning, signal.getsignal(signal.SIGINT),
        sys.excepthook, sys.getrecursionlimit(),
    ]

with torch.device("meta"):  # weights draw no numbers
    before = state()
    MonaiEncoder((1, 17, 14), model="resnet10")
    after = state()
print([i for i, (a, b) in enumerate(zip(before, after)) if a != b], "monai" in sys.modules)
"""
    assert fresh(code) == "[] True\n"


@pytest.mark.parametrize("module", ["nidl_monai.encoder", "nidl_monai.decoder"])
def test_docstring_examples_run(module):
    failed, attempted = doctest.testmod(importlib.import_module(module))
    assert failed == 0
    assert attempted >= 3


def test_readme_example_prints_what_it_says(capsys):
    exec(EXAMPLES[0], {})
    assert capsys.readouterr().out == "(2, 128) 128\n(2, 1, 20, 18, 17)\n"


def test_readme_names_every_model():
    for cls in (MonaiEncoder, MonaiDecoder):
        assert all(f"`{model}`" in README for model in cls.choices()["model"])
