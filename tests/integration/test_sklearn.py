"""A by-name VAE among scikit-learn's own: its checks, pipelines, searches, clones and pickles."""

from __future__ import annotations

import copy
import pickle

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import nidl_core as nidl
from nidl_core.errors import NidlError

D, L = 6, 2
SMALL = {"name": "mlp", "params": {"widths": [5]}}


def make(**params):
    given = {
        "encoder": SMALL,
        "decoder": {"name": "mlp", "params": {"widths": (5,)}},
        "latent_dim": L,
        "stochastic_transform": False,
        "max_epochs": 1,
        "random_state": 0,
        **params,
    }
    return nidl.build("vae", **given)


def table(n=40, seed=0):
    """Two groups of rows, and which group each is of."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    return (rng.normal(size=(n, D)) + 3 * y[:, None]).astype(np.float32), y


def weights(vae):
    return {name: weight.clone() for name, weight in vae.state_dict().items()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name, weight in a.items():
        assert torch.equal(weight, b[name]), name


EXPECTED_TO_FAIL = {
    "check_no_attributes_set_in_init": "Lightning sets attributes of its own in __init__",
    "check_do_not_raise_errors_in_init_or_set_params": (
        "passes a parameter literally called trainer_kwargs, and unknown keywords are refused"
    ),
}


@parametrize_with_checks([make()], expected_failed_checks=lambda estimator: EXPECTED_TO_FAIL)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.filterwarnings("ignore:.*recommended to delay parameter validation until fit")
def test_scikit_learns_own_check(estimator, check):
    check(estimator)


# Parameters -----------------------------------------------------------------------------------


def test_get_params_is_what_was_given_and_deep_adds_the_components_own():
    vae = make(likelihood={"name": "normal", "params": {"scale": 0.5}}, enable_progress_bar=False)
    shallow, deep = vae.get_params(deep=False), vae.get_params()
    assert shallow["encoder"] is SMALL and shallow["max_epochs"] == 1
    assert shallow["enable_progress_bar"] is False
    assert shallow.items() <= deep.items()
    nested = {name: value for name, value in deep.items() if name not in shallow}
    assert nested["encoder__widths"] == [5] and nested["decoder__widths"] == (5,)
    assert nested["encoder__activation"] == "relu"  # a default of mlp
    assert nested["likelihood__scale"] == 0.5 and nested["likelihood__min_scale"] == 1e-3
    assert nested["loss__beta"] == 1.0  # the one it gets, not its class's default
    assert "encoder__input_shape" not in nested and "decoder__latent_dim" not in nested


def test_likelihood_left_out_has_the_parameters_of_default_dist():
    vae = make()
    assert vae.get_params()["likelihood__scale"] == 1.0
    vae.set_params(likelihood__scale=0.25)
    assert vae.get_params()["likelihood"] == {"name": "normal", "params": {"scale": 0.25}}


def test_set_params_rewrites_a_spec_and_leaves_the_given_one():
    vae = make()
    assert vae.set_params(encoder__widths=[7, 3], encoder__activation="tanh", beta=2.0) is vae
    params = vae.get_params(deep=False)
    assert params["encoder"] == {"name": "mlp", "params": {"widths": [7, 3], "activation": "tanh"}}
    assert params["beta"] == 2.0 and SMALL == {"name": "mlp", "params": {"widths": [5]}}
    assert vae.fit(table()[0]).fc_mu.in_features == 3


def test_set_params_of_a_name_and_its_parameters_in_one_call():
    vae = make(encoder="mlp").set_params(likelihood="laplace", likelihood__scale=2.0)
    assert vae.get_params()["likelihood"] == {"name": "laplace", "params": {"scale": 2.0}}
    vae.set_params(encoder__widths=[4])
    assert vae.get_params()["encoder"] == {"name": "mlp", "params": {"widths": [4]}}


REFUSED = {
    "an unknown parameter": {"betta": 1.0},
    "a parameter of no component": {"encoder__widhts": [3]},
    "an unknown component": {"decoder": "mpl"},
    "an unknown likelihood": {"likelihood": "gauss"},
    "a nested parameter of nothing": {"optimizer__lr": 1.0},
    "what the estimator fills in itself": {"encoder__input_shape": (3,)},
    "no spec": {"encoder": {"nam": "mlp"}},
    "an impossible default_dist": {"default_dist": "gauss"},
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("fitted", [False, True])
def test_set_params_changes_nothing_on_an_error(case, fitted):
    vae = make().fit(table()[0]) if fitted else make()
    before, trained = copy.deepcopy(vae.get_params()), weights(vae)
    with pytest.raises(NidlError):
        vae.set_params(beta=9.0, latent_dim=5, encoder__activation="tanh", **REFUSED[case])
    assert vae.get_params() == before and vae.criterion.beta == 1.0
    assert_same(weights(vae), trained)
    if fitted:
        assert vae.transform(table()[0]).shape == (40, L)


@pytest.mark.parametrize("way", ["constructor", "set_params"])
@pytest.mark.parametrize(
    ("parameter", "value"),
    [("likelihood__scale", -1.0), ("encoder__dropout", 2.0), ("loss__beta", float("nan"))],
)
def test_impossible_values_of_a_component_are_told_at_fit_and_not_before(parameter, value, way):
    component, _, name = parameter.partition("__")
    default = {"likelihood": "normal", "encoder": "mlp", "loss": "beta_vae"}[component]
    if way == "constructor":
        vae = make(**{component: {"name": default, "params": {name: value}}})
    else:
        vae = make().set_params(**{parameter: value})
    assert repr(vae.get_params()[parameter]) == repr(value)
    with pytest.raises(NidlError, match=f"{name} must be .*{value}"):
        vae.fit(table()[0])
    good = clone(make()).get_params()[parameter]
    assert np.isfinite(vae.set_params(**{parameter: good}).fit(table()[0]).score(table()[0]))


def test_repr_shows_what_was_given_and_hides_defaults():
    text = repr(make(beta=2.0))
    assert text.startswith("VAE(") and "beta=2.0" in text and "max_epochs=1" in text
    assert "weight_decay" not in text
    assert repr(make(beta=2.0).fit(table()[0])) == text


# Clones and pickles ---------------------------------------------------------------------------


def test_clone_after_a_fit_holds_no_trained_weight():
    vae = make().fit(table()[0])
    fresh = clone(vae)
    assert dict(fresh.named_parameters()) == {}
    with pytest.raises(NotFittedError):
        fresh.transform(table()[0])
    assert_same(weights(fresh.fit(table()[0])), weights(vae))


def test_clone_has_parameters_of_its_own():
    vae = make()
    fresh = clone(vae)
    assert fresh.get_params() == vae.get_params()
    fresh.set_params(encoder__widths=[9], beta=3.0)
    assert vae.get_params()["encoder__widths"] == [5] and vae.beta == 1.0


def test_two_fits_with_one_random_state_give_identical_weights():
    torch.manual_seed(1)
    first = weights(make().fit(table()[0]))
    torch.manual_seed(2)
    assert_same(weights(make().fit(table()[0])), first)


@pytest.mark.parametrize("how", ["pickle", "joblib"])
def test_a_fitted_estimator_survives(how, tmp_path):
    x, _ = table()
    vae = make(likelihood={"name": "normal", "params": {"scale": "optimal"}}).fit(x)
    if how == "pickle":
        other = pickle.loads(pickle.dumps(vae))
    else:
        joblib.dump(vae, tmp_path / "vae")
        other = joblib.load(tmp_path / "vae")
    assert_same(weights(vae), weights(other))
    assert other.get_params() == vae.get_params()
    assert np.array_equal(vae.transform(x), other.transform(x))
    assert vae.score(x) == other.score(x)
    assert_same(weights(clone(other).fit(x)), weights(vae))


# Pipelines and searches -----------------------------------------------------------------------


def test_pipeline_with_a_scaler_before_and_a_classifier_after():
    x, y = table(80)
    pipeline = make_pipeline(StandardScaler(), make(max_epochs=60, lr=1e-2), LogisticRegression())
    pipeline.fit(x, y)
    assert pipeline.score(x, y) > 0.9
    latents = pipeline[:-1].transform(x)
    assert latents.shape == (80, L) and latents.dtype == np.float32
    scaled = StandardScaler().fit_transform(x)
    assert np.array_equal(latents, make(max_epochs=60, lr=1e-2).fit(scaled).transform(scaled))
    again = clone(pipeline).fit(x, y)
    assert np.array_equal(again.predict_proba(x), pipeline.predict_proba(x))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_grid_search_over_own_parameters_and_components_parameters_in_two_processes():
    x, _ = table()
    grid = {
        "beta": [0.5, 4.0],
        "latent_dim": [1, 3],
        "encoder__widths": [[4], [6, 3]],
        "likelihood__scale": [0.5, 2.0],
    }
    search = GridSearchCV(make(), grid, cv=2, n_jobs=2, error_score="raise").fit(x)
    results = search.cv_results_
    assert len(results["params"]) == 16 and np.isfinite(results["mean_test_score"]).all()
    for setting in (search.best_params_, results["params"][5]):  # as in this process, by hand
        at = results["params"].index(setting)
        by_hand = [
            make().set_params(**setting).fit(x[train]).score(x[test])
            for train, test in [(slice(20, 40), slice(0, 20)), (slice(0, 20), slice(20, 40))]
        ]
        scores = [results[f"split{i}_test_score"][at] for i in (0, 1)]
        assert scores == pytest.approx(by_hand, rel=1e-6)
    best = search.best_estimator_
    assert best.get_params()["encoder__widths"] == search.best_params_["encoder__widths"]
    assert search.transform(x).shape == (40, search.best_params_["latent_dim"])


def test_cross_val_score_is_the_held_out_score():
    x, _ = table()
    scores = cross_val_score(make(), x, cv=2)
    by_hand = [make().fit(x[20:]).score(x[:20]), make().fit(x[:20]).score(x[20:])]
    assert scores == pytest.approx(by_hand, rel=1e-6)


# Answers --------------------------------------------------------------------------------------


def test_score_is_the_mean_elbo_in_nats():
    """By hand from q and p, with the mean over many posterior samples as the reference."""
    x, _ = table()
    vae = make(latent_dim=1, beta=5.0).fit(x)
    rows = torch.from_numpy(x)
    with torch.no_grad():
        q = vae.encode(rows)
        z = q.sample((400,))
        mean = torch.stack([vae.decoder(draw) for draw in z])
        log_prob = -0.5 * ((rows - mean) ** 2 + np.log(2 * np.pi)).sum(-1)  # (400, N)
        kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0, 1)).sum(1)
    exact = (log_prob.mean(0) - kl).mean().item()
    error = (log_prob.std(0).square().sum().sqrt() / len(x)).item()
    assert abs(vae.score(x) - exact) < 4 * error
    assert isinstance(vae.score(x), float)


@pytest.mark.parametrize("batch_size", [1, 7, 40])
@pytest.mark.parametrize("stochastic", [False, True])
def test_answers_do_not_depend_on_batch_size(batch_size, stochastic):
    x, _ = table()
    vae = make(stochastic_transform=stochastic).fit(x)
    answers = [vae.transform(x), vae.score(x), vae.score_samples(x, K=3), vae.reconstruct(x)]
    vae.set_params(batch_size=batch_size)
    again = [vae.transform(x), vae.score(x), vae.score_samples(x, K=3), vae.reconstruct(x)]
    for one, other in zip(answers, again, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)


def test_score_samples_keeps_to_its_row_in_any_order_or_subset():
    x, _ = table()
    vae = make(stochastic_transform=True).fit(x)
    order = np.random.default_rng(1).permutation(len(x))
    for verb in (vae.score_samples, vae.transform):
        np.testing.assert_allclose(verb(x[order][:15]), verb(x)[order][:15], rtol=1e-5, atol=1e-6)


def test_score_samples_grows_with_k_and_gives_standard_errors():
    x, _ = table(60)
    vae = make(max_epochs=5, lr=1e-2).fit(x)
    one, many = vae.score_samples(x, K=1), vae.score_samples(x, K=64)
    assert one.shape == many.shape == (60,)
    assert many.mean() > one.mean()  # L_K grows with K (Burda et al. 2016)
    bound, errors = vae.score_samples(x, K=64, return_std=True)
    assert np.array_equal(bound, many)
    assert errors.shape == (60,) and (errors > 0).all()
    # against the spread over seeds, averaged over the rows
    draws = np.stack([vae.set_params(random_state=s).score_samples(x, K=64) for s in range(10)])
    ratio = errors.mean() / draws.std(0).mean()
    assert 0.6 < ratio < 1.5


def test_score_samples_with_one_sample_has_the_mean_of_the_elbo():
    x, _ = table()
    vae = make().fit(x)
    bounds = [vae.set_params(random_state=s).score_samples(x, K=1).mean() for s in range(20)]
    elbos = [vae.set_params(random_state=s).score(x) for s in range(20)]
    error = np.hypot(np.std(bounds), np.std(elbos)) / np.sqrt(20)
    assert abs(np.mean(bounds) - np.mean(elbos)) < 4 * error


def test_fit_transform_is_fit_then_transform():
    x, y = table()
    assert np.array_equal(make().fit_transform(x), make().fit(x).transform(x))
    assert np.array_equal(make().fit_transform(x, y), make().fit(x).transform(x))


def test_get_feature_names_out_counts_the_latents():
    vae = make(latent_dim=3).fit(table()[0])
    assert vae.get_feature_names_out().tolist() == ["vae0", "vae1", "vae2"]
    vae.set_params(latent_dim=5)  # counts from the next fit
    assert vae.get_feature_names_out().tolist() == ["vae0", "vae1", "vae2"]


def test_set_output_gives_data_frames():
    pandas = pytest.importorskip("pandas")
    x, _ = table()
    frame = pandas.DataFrame(x, columns=[f"roi{i}" for i in range(D)], index=range(100, 140))
    vae = make().set_output(transform="pandas").fit(frame)
    assert vae.feature_names_in_.tolist() == list(frame.columns)
    z = vae.transform(frame)
    assert isinstance(z, pandas.DataFrame) and list(z.columns) == ["vae0", "vae1"]
    assert z.index.equals(frame.index)
    assert np.array_equal(z.to_numpy(), make().fit(x).transform(x))
    with pytest.raises(ValueError, match="feature names should match"):
        vae.transform(frame.rename(columns={"roi0": "other"}))


def test_features_of_another_number_are_told_in_scikit_learns_words():
    with pytest.raises(ValueError, match="X has 5 features, but VAE is expecting 6 features"):
        make().fit(table()[0]).transform(table()[0][:, :5])
