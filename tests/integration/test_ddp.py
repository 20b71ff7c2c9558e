"""Two CPU processes by Lightning's own names: one fit, whole answers on every rank, in order.

The script below runs once per test under `strategy="ddp"` (gloo); each rank writes what it got.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import nidl_core as nidl

D = 6

SCRIPT = """
import os, pathlib, sys
import numpy as np, torch
from torch.utils.data import DataLoader, Dataset
import nidl_core as nidl

torch.set_num_threads(1)
folder, n = pathlib.Path(sys.argv[1]), int(sys.argv[2])
x = torch.randn(n, 6, generator=torch.Generator().manual_seed(0))
val = torch.randn(n + 2, 6, generator=torch.Generator().manual_seed(1))

class Items(Dataset):
    def __len__(self):
        return len(x)
    def __getitem__(self, i):
        return x[i], i

def loader():
    return DataLoader(Items(), batch_size=5, shuffle=False)

def make(**params):
    mlp = {"name": "mlp", "params": {"widths": [5]}}
    given = {"latent_dim": 2, "max_epochs": 2, "lr": 1e-2, "batch_size": 5, "random_state": 0,
             "strategy": "ddp", "accelerator": "cpu", "devices": 2}
    return nidl.build("vae", encoder=mlp, decoder=mlp, **{**given, **params})

def answers(vae, data):
    return {
        "weights": dict(vae.state_dict()),
        "transform": torch.as_tensor(vae.transform(data)),
        "reconstruct": torch.as_tensor(vae.reconstruct(data)),
        "score": vae.score(data),
        "score_samples": torch.as_tensor(vae.score_samples(data, K=3)),
        "history": vae.history_,
        "seed": vae.seed_,
    }

optimal = {"name": "normal", "params": {"scale": "optimal"}}
out = {}
for stochastic in (False, True):
    vae = make(stochastic_transform=stochastic).fit(x.numpy(), val=val.numpy())
    out[f"array, stochastic={stochastic}"] = answers(vae, x.numpy())
out["Dataset"] = answers(make(likelihood=optimal).fit(Items(), val=val), Items())
out["DataLoader"] = answers(make().fit(loader(), loader()), loader())
out["random_state=None"] = answers(vae := make(random_state=None).fit(x), x)
out["random_state=None"]["sample"] = vae.sample(2, seed=1)
rank = int(os.environ.get("LOCAL_RANK", 0))
torch.save(out, folder / f"{rank}.pt")
if rank == 0:
    vae = make().fit(x.numpy())
    vae.save(folder / "model.nidl")
else:
    make().fit(x.numpy())
"""


def run(folder, n):
    (folder / "train.py").write_text(SCRIPT)
    keep = {
        k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE", "NODE_RANK")
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "train.py", str(folder), str(n)],
        cwd=folder,
        env={**keep, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.fixture(scope="module", params=[16, 19], ids="{} rows".format)
def ranks(request, tmp_path_factory):
    """(rows, what rank 0 got, what rank 1 got, folder): the last batch is uneven in both."""
    folder = tmp_path_factory.mktemp("ddp")
    return request.param, *run(folder, request.param), folder


FORMS = [
    "array, stochastic=False",
    "array, stochastic=True",
    "Dataset",
    "DataLoader",
    "random_state=None",
]


def data(n):
    x = torch.randn(n, D, generator=torch.Generator().manual_seed(0))
    val = torch.randn(n + 2, D, generator=torch.Generator().manual_seed(1))
    return x, val


def single(answer, form):
    """A one-process estimator with the weights that two processes trained."""
    mlp = {"name": "mlp", "params": {"widths": [5]}}
    given = {
        "latent_dim": 2,
        "max_epochs": 1,
        "batch_size": 5,
        "random_state": answer["seed"],
        "stochastic_transform": form != FORMS[0],
        "accelerator": "cpu",
    }
    if form == "Dataset":
        given["likelihood"] = {"name": "normal", "params": {"scale": "optimal"}}
    vae = nidl.build("vae", encoder=mlp, decoder=mlp, **given)
    vae.fit(data(16)[0])
    vae.load_state_dict(answer["weights"])
    return vae


@pytest.mark.parametrize("form", FORMS)
def test_weights_agree_on_both_ranks(form, ranks):
    _, first, second, _ = ranks
    assert first[form]["seed"] == second[form]["seed"]
    for name, weight in first[form]["weights"].items():
        assert torch.equal(weight, second[form]["weights"][name]), name


def test_training_has_moved_the_weights_and_random_states_differ(ranks):
    _, first, _, _ = ranks
    a, b = (first[form]["weights"]["fc_mu.weight"] for form in (FORMS[0], "random_state=None"))
    assert not torch.equal(a, b)
    history = first[FORMS[0]]["history"]
    assert history[0]["train/loss"] != history[1]["train/loss"]


@pytest.mark.parametrize("form", FORMS[:-1])
def test_transform_has_every_row_once_in_order_as_a_single_process_would(form, ranks):
    n, *both, _ = ranks
    x, _ = data(n)
    vae = single(both[0][form], form)
    expected = {"transform": vae.transform(x), "reconstruct": vae.reconstruct(x)}
    for answer in both:
        for verb, rows in expected.items():
            assert answer[form][verb].shape == rows.shape
            torch.testing.assert_close(answer[form][verb], rows, rtol=1e-5, atol=1e-6)


def test_with_random_state_none_both_ranks_get_the_same_whole_answer(ranks):
    n, first, second, _ = ranks
    one, other = first["random_state=None"], second["random_state=None"]
    assert one["transform"].shape == (n, 2)
    for item in ("transform", "reconstruct", "score_samples", "sample"):
        assert torch.equal(one[item], other[item]), item
    assert one["score"] == other["score"]


@pytest.mark.parametrize("form", FORMS[:-1])
def test_scores_are_those_of_a_single_process(form, ranks):
    n, *both, _ = ranks
    x, _ = data(n)
    vae = single(both[0][form], form)
    for answer in both:
        assert answer[form]["score"] == pytest.approx(vae.score(x), rel=1e-6)
        torch.testing.assert_close(
            answer[form]["score_samples"], vae.score_samples(x, K=3), rtol=1e-6, atol=1e-5
        )


@pytest.mark.parametrize("form", FORMS[:-2])
def test_validation_figures_are_those_of_a_single_process(form, ranks):
    """Each row counts once, on whichever rank it was; 18 and 21 rows, which two do not share alike.

    Validation and score draw the same noise for a row, and the loss is -ELBO here.
    """
    n, *both, _ = ranks
    _, val = data(n)
    vae = single(both[0][form], form)
    with torch.no_grad():
        prior = torch.distributions.Normal(0.0, 1.0)
        kl = torch.distributions.kl_divergence(vae.encode(val), prior).sum(1).mean().item()
    elbo = vae.score(val)
    expected = {"elbo": elbo, "loss": -elbo, "kl_loss": kl, "rec_loss": -elbo - kl}
    for answer in both:
        figures = answer[form]["history"][-1]
        for name, value in expected.items():
            assert figures[f"val/{name}"] == pytest.approx(value, rel=1e-5), name


def test_a_model_trained_in_two_processes_loads_in_one(ranks):
    n, first, _, folder = ranks
    x, _ = data(n)
    loaded = nidl.load(folder / "model.nidl").set_params(strategy="auto", devices=1)
    assert loaded.transform(x.numpy()).shape == (n, 2)
    trained = first["array, stochastic=True"]["weights"]
    for name, weight in loaded.state_dict().items():
        np.testing.assert_array_equal(weight, trained[name])
