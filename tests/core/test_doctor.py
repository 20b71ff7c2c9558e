"""`nidl doctor --load` with the real torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

SOURCE = """
{first}
from nidl_core import Encoder

class T(Encoder):
    def __init__(self, input_shape):
        super().__init__()

    def forward(self, x): ...
"""
DOINGS = {
    "": "",
    "import torch._dynamo": "",  # it wraps torch.manual_seed, which is torch's own affair
    "import functools, torch; torch.matmul = functools.wraps(torch.matmul)(lambda *a: 0)": "torch.matmul",
    "import torch; torch.set_num_threads(3)": "the number of torch threads",
    "import torch; torch.set_default_dtype(torch.float64)": "torch's default dtype",
    "import torch; torch.manual_seed(1234)": "torch's random state",
    "import torch; torch.randn(1)": "torch's random state",
    "import numpy; numpy.random.seed(0)": "numpy's random state",
    "import random; random.seed(0)": "Python's random state",
    "import torch; torch.set_grad_enabled(False)": "whether gradients are on",
    "import torch; torch.Tensor.__repr__ = object.__repr__": "torch.Tensor.__repr__",
    "import torch; torch.nn.Module.train = lambda self: self": "torch.nn.Module.train",
    "import torch; torch.nn.functional.relu = torch.relu": "torch.nn.functional.relu",
    "import torch; del torch.bmm": "torch.bmm",
}


def test_what_imports_do_to_torch_is_found(tmp_path: Path) -> None:
    """One distribution with a module for each deed, beside all that is installed."""
    info = tmp_path / "nidl_test-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nidl-test\nVersion: 1.0\n")
    points = [f"test{number} = nidl_test{number}:T" for number in range(len(DOINGS))]
    (info / "entry_points.txt").write_text("\n".join(["[nidl.encoders]", *points]))
    for number, deed in enumerate(DOINGS):
        (tmp_path / f"nidl_test{number}.py").write_text(SOURCE.format(first=deed))
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    answer = subprocess.run(
        [sys.executable, "-m", "nidl_core.cli", "doctor", "--load", "--json"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert answer.returncode == 1, answer.stderr
    found = json.loads(answer.stdout)
    assert found["torch"]["version"] == torch.__version__
    assert found["torch"]["seconds"] > 0
    texts = [p["text"] for p in found["problems"] if p["what"] == "side-effect"]
    for number, what in enumerate(DOINGS.values()):
        who = f"the import of the encoder 'test{number}' of nidl-test 1.0 changes "
        told = [text for text in texts if text.startswith(who)]
        assert [what in text for text in told] == ([True] if what else [])
        texts = [text for text in texts if text not in told]
    assert texts == []  # whatever else is installed does nothing of the kind
