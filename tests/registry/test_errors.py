"""Errors carry their facts as fields, and across process borders."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from nidl_core import errors

NAMED = {"kind": "losses", "name": "nope"}
DIST = {**NAMED, "distribution": "acme", "version": "1.0"}
ERRORS: list[errors.NidlError] = [
    errors.NidlError("plain"),
    errors.ComponentError("text", **NAMED),
    errors.UnknownComponent(
        **NAMED, close=["nape"], installed=["a"], providers=["acme"], note="(A note.)"
    ),
    errors.AmbiguousComponent(**NAMED, ids=["a:nope", "b:nope"]),
    errors.DisabledComponent(**NAMED, ids=["a:nope"], variable="V", value="a"),
    errors.BrokenComponent(**DIST, target="acme:T", reason="KeyError: 'x'"),
    errors.IncompatibleComponent(**DIST, reason="too new."),
    errors.WrongTypeComponent(**DIST, reason="no class."),
    errors.HookError("plugins failed in it", reasons={"acme:hooks": "KeyError: 'x'"}),
    errors.SpecError("text"),
    errors.UnknownParameter(
        owner="encoder 'mlp'", parameter="widht", accepted=["width"], close=["width"]
    ),
    errors.InvalidParameter("beta", -1, "a finite number >= 0"),
    errors.ShapeError("text"),
    errors.DataError("text"),
    errors.DataTypeError("text"),
    errors.MissingFile("there is no file x.npy."),
    errors.NonFiniteError(what="the loss", epoch=3, step=17, causes=["lr", "data"]),
    errors.ModelFileError("text"),
    errors.MissingComponents("text", missing=["encoder 'a:b'"], requirements=["a>=1,<1.1"]),
]


def test_every_error_class_is_in_the_table() -> None:
    every = {c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, Exception)}
    assert {type(e) for e in ERRORS} == every
    assert all(issubclass(cls, errors.NidlError) for cls in every)


def facts(error: errors.NidlError) -> tuple[Any, ...]:
    return type(error), str(error), error.args, vars(error)


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_errors_survive_pickling_and_copying_with_their_fields(error: errors.NidlError) -> None:
    before = facts(error)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert facts(pickle.loads(pickle.dumps(error, protocol))) == before
    assert facts(copy.copy(error)) == before
    assert facts(copy.deepcopy(error)) == before


@pytest.mark.parametrize(
    ("error", "also"),
    [
        (errors.ComponentError, LookupError),
        (errors.WrongTypeComponent, TypeError),
        (errors.SpecError, (ValueError, TypeError)),
        (errors.UnknownParameter, (ValueError, TypeError)),
        (errors.InvalidParameter, ValueError),
        (errors.ShapeError, ValueError),
        (errors.DataError, ValueError),
        (errors.DataTypeError, TypeError),
        (errors.MissingFile, FileNotFoundError),
        (errors.DisabledComponent, LookupError),
        (errors.NonFiniteError, FloatingPointError),
        (errors.ModelFileError, ValueError),
        (errors.MissingComponents, LookupError),
    ],
)
def test_errors_are_also_the_builtin_ones_that_callers_expect(error: type, also: Any) -> None:
    for builtin in also if isinstance(also, tuple) else (also,):
        assert issubclass(error, builtin)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            errors.UnknownComponent(
                kind="encoders", name="cnn3", close=["cnn3d"], installed=["cnn3d", "mlp"]
            ),
            "no encoder named 'cnn3'. Did you mean 'cnn3d'? Installed: cnn3d, mlp.",
        ),
        (
            errors.UnknownComponent(kind="encoders", name="resnet3d", providers=["nidl-monai"]),
            "no encoder named 'resnet3d' is installed. It comes with nidl-monai: pip install nidl-monai",
        ),
        (
            errors.DisabledComponent(
                kind="encoders", name="mlp", ids=["a:mlp", "b:mlp"], variable="OFF", value="a,b"
            ),
            "the encoder 'mlp' (a:mlp and b:mlp) is switched off by the environment variable OFF='a,b'. "
            "Take it out of there to use it.",
        ),
        (
            errors.HookError("plugins failed in it", reasons={"a:b": "KeyError: 'x'", "c:d": "no"}),
            "plugins failed in it: a:b (KeyError: 'x'); c:d (no)",
        ),
        (
            errors.UnknownParameter(owner="VAE", parameter="x", accepted=[], also=" and more"),
            "VAE has no parameter 'x'. It takes: none and more.",
        ),
        (
            errors.InvalidParameter("latent_dim", 0, "an int >= 1"),
            "latent_dim must be an int >= 1, got latent_dim=0.",
        ),
        (
            errors.NonFiniteError(what="the loss (nan)", epoch=3, step=17, causes=["a", "b"]),
            "the loss (nan) is not finite at epoch 3, step 17. Likely causes: a; b.",
        ),
    ],
)
def test_error_texts(error: errors.NidlError, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize(
    ("kind", "noun"),
    [
        ("estimators", "estimator"),
        ("encoders", "encoder"),
        ("decoders", "decoder"),
        ("likelihoods", "likelihood"),
        ("losses", "loss"),
    ],
)
def test_singular_of_every_kind(kind: str, noun: str) -> None:
    assert errors.singular(kind) == noun


def test_an_error_from_another_process_arrives_whole(site: Any) -> None:
    code = """
    import json, multiprocessing
    from nidl_core import encoders
    if True:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            try:
                pool.apply(encoders.get, ("nope",))
            except LookupError as err:
                print(json.dumps([type(err).__name__, err.kind, err.name, err.installed]))
    """
    site.add("acme", {"mine": "acme:M"})
    assert site.ask(code) == ["UnknownComponent", "encoders", "nope", ["mine"]]
