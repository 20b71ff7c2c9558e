"""Other people's distributions, built and installed: good, broken, rivals, late.

Each question is asked in a fresh process, as a user's would be.
"""

from __future__ import annotations

import numpy as np
import pytest

# Asks for components and answers with what came: a class, or an error with its fields.
GET = """
import json, sys
import nidl_core as nidl

def get(name):
    try:
        cls = nidl.encoders.get(name)
    except nidl.NidlError as err:
        cause = repr(err.__cause__) if err.__cause__ else None
        fields = {k: v for k, v in vars(err).items() if isinstance(v, (str, list))}
        return {"error": type(err).__name__, "text": str(err), "cause": cause, **fields}
    return {"class": f"{cls.__module__}:{cls.__qualname__}"}

print(json.dumps({name: get(name) for name in sys.argv[1:]}))
"""
AVAILABLE = """
import json, sys
import nidl_core as nidl
print(json.dumps([nidl.available("encoders"), "torch" in sys.modules]))
"""


def test_an_installed_plugin_is_listed_without_being_imported(site, acme):
    before, _ = site.ask(AVAILABLE)
    site.install(acme)
    names, torch_imported = site.ask(AVAILABLE)
    assert names == sorted([*before, "pool2d"])
    assert not torch_imported


def test_an_installed_plugin_is_found_by_name_and_by_full_id(site, acme):
    site.install(acme)
    answers = site.ask(GET, "pool2d", "nidl-acme:pool2d")
    assert {a["class"] for a in answers.values()} == {"nidl_acme.pool:Pool2d"}


def test_a_third_party_likelihood_is_exact(site, acme):
    site.install(acme)
    site.ask(
        """
        import numpy as np, nidl_core as nidl, torch
        from scipy import stats
        theta, x = torch.randn(2, 3, 1, 4, 5, dtype=torch.float64)
        p = nidl.likelihoods.build("cauchy", scale=0.3)(theta)
        expected = stats.cauchy(theta.numpy(), 0.3).logpdf(x.numpy()).sum((1, 2, 3))
        np.testing.assert_allclose(p.log_prob(x).numpy(), expected, rtol=1e-12)
        print("null")
        """
    )


def test_third_party_components_make_a_vae_that_is_trained_saved_and_loaded(site, acme):
    site.install(acme)
    data = np.random.default_rng(0).normal(size=(32, 1, 8, 8)).astype("float32")
    np.save(site.folder / "x.npy", data)
    shape = site.ask(
        """
        import json, numpy as np, nidl_core as nidl
        x = np.load("x.npy")
        vae = nidl.build(
            "vae", encoder="pool2d", decoder="mlp", likelihood="cauchy", latent_dim=2,
            stochastic_transform=False, max_epochs=1, random_state=0, accelerator="cpu",
        ).fit(x)
        z = vae.transform(x)
        np.save("z.npy", z)
        vae.save("model.nidl")
        print(json.dumps(z.shape))
        """
    )
    assert shape == [32, 2]
    difference = site.ask(
        """
        import numpy as np, nidl_core as nidl
        z = nidl.load("model.nidl").transform(np.load("x.npy"))
        print(float(np.abs(z - np.load("z.npy")).max()))
        """
    )
    assert difference == 0


def test_a_name_of_two_distributions_is_an_error_that_names_both(site, strangers):
    site.install(strangers["nidl-twin-a"], strangers["nidl-twin-b"])
    answers = site.ask(GET, "twin", "nidl-twin-a:twin", "nidl-twin-b:twin")
    ids = ["nidl-twin-a:twin", "nidl-twin-b:twin"]
    assert answers["twin"]["error"] == "AmbiguousComponent"
    assert answers["twin"]["ids"] == ids
    assert all(i in answers["twin"]["text"] for i in ids)
    assert answers["nidl-twin-a:twin"] == {"class": "nidl_twin_a:TwinA"}
    assert answers["nidl-twin-b:twin"] == {"class": "nidl_twin_b:TwinB"}


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("raises", "RuntimeError('no licence key')"),
        ("noattr", "AttributeError(\"module 'nidl_noattr' has no attribute 'Gone'\")"),
    ],
)
def test_a_broken_component_says_whose_fault_it_is(site, strangers, name, cause):
    site.install(strangers[f"nidl-{name}"])
    answer = site.ask(GET, name)[name]
    assert answer["error"] == "BrokenComponent"
    assert (answer["distribution"], answer["version"]) == (f"nidl-{name}", "0.0.1")
    assert answer["cause"] == cause
    assert answer["reason"] in answer["text"]


def test_a_plugin_for_another_core_is_refused_before_its_import(site, strangers):
    site.install(strangers["nidl-future"])
    answer = site.ask(GET, "future")["future"]
    assert answer["error"] == "IncompatibleComponent"
    assert answer["distribution"] == "nidl-future"
    assert "nidl-core >=99" in answer["reason"]


def test_a_bad_neighbour_hides_nobody(site, acme, strangers):
    site.install(acme, *strangers.values())
    names, _ = site.ask(AVAILABLE)
    assert {"future", "mlp", "noattr", "pool2d", "raises", "twin"} <= set(names)
    answers = site.ask(GET, "raises", "noattr", "future", "twin", "pool2d", "mlp")
    assert answers["pool2d"] == {"class": "nidl_acme.pool:Pool2d"}
    assert answers["mlp"] == {"class": "nidl_backbones.mlp:MLPEncoder"}


def test_a_plugin_installed_while_the_process_runs_is_found(site, acme):
    answers = site.ask(
        """
        import json, subprocess, sys
        import nidl_core as nidl
        try:
            before = nidl.encoders.get("pool2d").__name__
        except nidl.NidlError as err:
            before = type(err).__name__
        subprocess.run(sys.argv[1:], check=True)
        print(json.dumps([before, nidl.encoders.get("pool2d").__name__]))
        """,
        *site.installer(acme),
    )
    assert answers == ["UnknownComponent", "Pool2d"]


def test_distributions_that_share_a_namespace_package_come_one_by_one(site, shared_namespace):
    first, second = shared_namespace
    site.install(first)
    assert site.ask(GET, "deep")["deep"]["class"] == "lab_ns.deep:Deep"
    site.install(second)
    answers = site.ask(GET, "deep", "nidl-wide:wide")
    assert [a["class"] for a in answers.values()] == ["lab_ns.deep:Deep", "lab_ns.wide:Wide"]
