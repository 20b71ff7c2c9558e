"""Each installed component trains in each estimator, on the backend that the environment names."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nidl_core.testing.backends import compiler, current
from nidl_core.testing.fits import trainer_arguments

sys.path.insert(0, str(Path(__file__).parent))
import training

BACKEND = current()
PAIRS = training.pairs()
IDS = [training.name(pair) for pair in PAIRS]


def test_the_matrix_is_not_empty() -> None:
    kinds = {case.kind for _, case in PAIRS}
    assert kinds == {"encoders", "decoders", "likelihoods", "losses"}


@pytest.fixture(scope="module")
def in_two_processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two gloo ranks got, for all pairs."""
    folder = tmp_path_factory.mktemp("ddp")
    ranks = ("LOCAL_RANK", "WORLD_SIZE", "NODE_RANK")
    done = subprocess.run(
        [sys.executable, "-W", "error", training.__file__, str(folder)],
        env={**{k: v for k, v in os.environ.items() if k not in ranks}, "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]


@pytest.mark.parametrize("pair", PAIRS, ids=IDS)
def test_component_trains(pair: Any, request: pytest.FixtureRequest) -> None:
    if BACKEND.name == "ddp":
        one, other = request.getfixturevalue("in_two_processes")
        found = one[training.name(pair)]
        assert "failed" not in found, found["failed"]
        assert found == other[training.name(pair)]  # weights and figures alike on both ranks
    else:
        with BACKEND.scope():
            found = training.train(*pair, **trainer_arguments(BACKEND))
    for figure in ("train loss", "val loss", "score"):
        assert math.isfinite(found[figure]), figure
    assert found["reconstructions"] == [training.ROWS, *found["shape"]]
    assert found["latents"] == [training.ROWS, pair[0].params["latent_dim"]]


if compiler(BACKEND.name):

    @pytest.mark.parametrize("pair", PAIRS, ids=IDS)
    def test_compiled_training_agrees_with_eager(pair: Any) -> None:
        expected = training.train(*pair, accelerator=BACKEND.device)
        found = training.train(*pair, **trainer_arguments(BACKEND))
        for figure in ("train loss", "val loss", "score", "weights"):
            assert found[figure] == pytest.approx(expected[figure], rel=1e-3, abs=1e-3), figure
