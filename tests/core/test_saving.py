"""Model files: what goes in comes out, and nothing else does anything."""

from __future__ import annotations

import json
import math
import os
import pickle
import random
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from lightning.pytorch import Callback
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn

import nidl_core
from nidl_core import hooks, saving
from nidl_core.errors import MissingComponents, ModelFileError, NidlError, UnknownParameter
from nidl_core.hooks import hookimpl

CPU = {"accelerator": "cpu", "random_state": 0, "max_epochs": 1}


@pytest.fixture
def fitted(tiny: Any, x: Tensor) -> Any:
    """A fitted estimator, its encoder given by name."""
    return tiny(encoder={"name": "flat", "params": {"width": 4}}, **CPU).fit(x, val=x)


@pytest.fixture
def path(fitted: Any, tmp_path: Path) -> Path:
    """A model file of `fitted`."""
    file = tmp_path / "model.nidl"
    fitted.save(file)
    return file


def header(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("nidl.json"))


def rewrite(path: Path, change: Callable[[Any], Any]) -> Path:
    """The file with another header: `change` gives a new one, or edits the one it is given."""
    with zipfile.ZipFile(path) as archive:
        content = json.loads(archive.read("nidl.json"))
        weights = archive.read("weights.safetensors")
    changed = change(content)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("nidl.json", json.dumps(content if changed is None else changed))
        archive.writestr("weights.safetensors", weights)
    return path


def same(one: Any, other: Any) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return list(a) == list(b) and all(
        a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a
    )


# Round trips --------------------------------------------------------------------------------------


def test_a_round_trip_keeps_everything(fitted: Any, path: Path, x: Tensor) -> None:
    loaded = nidl_core.load(path)
    assert type(loaded) is type(fitted)
    assert same(loaded, fitted)
    assert torch.equal(loaded.transform(x), fitted.transform(x))
    for name in ("seed_", "history_", "input_shape_"):
        assert getattr(loaded, name) == getattr(fitted, name)
    assert {**loaded.get_params(deep=False), "encoder": None} == {
        **fitted.get_params(deep=False),
        "encoder": None,
    }
    assert loaded.encoder.out_features == 4
    assert loaded.get_params()["encoder__width"] == 4


def test_a_second_round_trip_gives_the_same_file(path: Path, tmp_path: Path, fitted: Any) -> None:
    fitted.save(tmp_path / "again.nidl")
    assert (tmp_path / "again.nidl").read_bytes() == path.read_bytes()
    nidl_core.load(path).save(tmp_path / "loaded.nidl")
    assert (tmp_path / "loaded.nidl").read_bytes() == path.read_bytes()


def test_the_names_of_the_features_come_back(tiny: Any, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"age": [1.0, 2.0, 3.0], "dose": [0.0, 1.0, 0.5]})
    fitted = tiny(**CPU).fit(frame)
    fitted.save(tmp_path / "m.nidl")
    loaded = nidl_core.load(tmp_path / "m.nidl")
    assert loaded.n_features_in_ == 2
    assert loaded.feature_names_in_.tolist() == ["age", "dose"]
    np.testing.assert_array_equal(loaded.transform(frame), fitted.transform(frame))


def test_a_loaded_model_can_be_fitted_on(path: Path, x: Tensor, fitted: Any) -> None:
    loaded = nidl_core.load(path)
    assert same(loaded.fit(x, val=x), fitted)
    warm = nidl_core.load(path).set_params(warm_start=True).fit(x)
    assert not same(warm, fitted)


def test_loading_leaves_the_random_state_alone(path: Path) -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    nidl_core.load(path)
    assert before == (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
    )


def test_tied_weights_stay_tied(tiny: Any, x: Tensor, tmp_path: Path) -> None:
    fitted = tiny(tied=True, **CPU).fit(x)
    assert fitted.again.weight is fitted.back.weight
    fitted.save(tmp_path / "m.nidl")
    loaded = nidl_core.load(tmp_path / "m.nidl")
    assert same(loaded, fitted)
    assert loaded.again.weight is loaded.back.weight


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64, torch.bool])
def test_buffers_of_any_dtype_come_back(tiny: Any, x: Tensor, tmp_path: Path, dtype: Any) -> None:
    class Buffered(tiny):  # type: ignore[misc]
        def build_networks(self, sample: Tensor | None) -> None:
            super().build_networks(sample)
            self.register_buffer("count", torch.tensor([[0, 1]]).mT.to(dtype))

    with nidl_core.estimators.temporary("buffered", Buffered):
        fitted = Buffered(**CPU).fit(x)
        fitted.count += True
        fitted.save(tmp_path / "m.nidl")
        assert same(nidl_core.load(tmp_path / "m.nidl"), fitted)


PLAIN: dict[str, tuple[Any, Any]] = {
    "None": (None, None),
    "bool": (True, True),
    "int": (2**70, 2**70),
    "float": (0.1, 0.1),
    "infinity": (math.inf, math.inf),
    "text": ("é\u2028\x00'\"", "é\u2028\x00'\""),
    "list": ([1, [2.5, None]], [1, [2.5, None]]),
    "tuple": ((1, (2, 3)), [1, [2, 3]]),
    "dict": ({"a": {"b": (1,)}}, {"a": {"b": [1]}}),
    "numpy int": (np.int64(3), 3),
    "numpy float": (np.float32(0.5), 0.5),
    "numpy bool": (np.bool_(True), True),
    "numpy text": (np.str_("x"), "x"),
    "path": (Path("a") / "b", os.path.join("a", "b")),
    "looks like a spec": ({"name": "os.system", "params": {}}, {"name": "os.system", "params": {}}),
}


@pytest.mark.parametrize(("value", "back"), PLAIN.values(), ids=PLAIN)
def test_plain_parameters_come_back(
    tiny: Any, x: Tensor, tmp_path: Path, value: Any, back: Any
) -> None:
    tiny(note=value, **CPU).fit(x).save(tmp_path / "m.nidl")
    found = nidl_core.load(tmp_path / "m.nidl").get_params(deep=False)["note"]
    assert found == back
    assert type(found) is type(back)


def test_nan_comes_back(tiny: Any, x: Tensor, tmp_path: Path) -> None:
    tiny(note=math.nan, **CPU).fit(x).save(tmp_path / "m.nidl")
    assert math.isnan(nidl_core.load(tmp_path / "m.nidl").note)


@pytest.mark.parametrize(
    "value", [object(), {1: 2}, [object()], {"a": [object()]}, b"x", 1j, {1}, np.ones(2)], ids=repr
)
def test_objects_are_left_out_and_named_in_a_warning(
    tiny: Any, x: Tensor, tmp_path: Path, value: Any
) -> None:
    fitted = tiny(note=value, callbacks=[Callback()], **CPU).fit(x)
    with pytest.warns(UserWarning) as caught:
        fitted.save(tmp_path / "m.nidl")
    (warning,) = caught
    assert str(warning.message) == (
        f"objects are not stored in a model file, left out: note ({type(value).__name__}), callbacks "
        "(list). Set them again after loading, with set_params."
    )
    assert warning.filename == __file__
    loaded = nidl_core.load(tmp_path / "m.nidl")
    assert loaded.note is None
    assert "callbacks" not in loaded.get_params()


@pytest.mark.parametrize("make", [np.random.RandomState, np.random.default_rng])
def test_a_generator_is_left_out(tiny: Any, x: Tensor, tmp_path: Path, make: Any) -> None:
    fitted = tiny(**{**CPU, "random_state": make(0)}).fit(x)
    with pytest.warns(UserWarning, match="left out: random_state"):
        fitted.save(tmp_path / "m.nidl")
    assert nidl_core.load(tmp_path / "m.nidl").random_state is None


# What stands in the file --------------------------------------------------------------------------


def test_a_model_file_is_json_and_safetensors_and_nothing_else(fitted: Any, path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["nidl.json", "weights.safetensors"]
        weights = safetensors.torch.load(archive.read("weights.safetensors"))
    assert set(weights) == set(fitted.state_dict())
    found = header(path)
    assert found["format"] == saving.FORMAT
    assert found["nidl_core"] == nidl_core.__version__
    assert found["estimator"] == "session:tiny"
    assert found["input_shape"] == [1, 2, 3]
    assert found["params"]["encoder"] == {"name": "session:flat", "params": {"width": 4}}
    assert found["components"] == [
        {
            "parameter": name,
            "kind": kind,
            "id": id_,
            "distribution": "session",
            "version": "",
        }
        for name, kind, id_ in [
            ("", "estimators", "session:tiny"),
            ("encoder", "encoders", "session:flat"),
        ]
    ]
    assert found["facts"]["torch"] == torch.__version__
    assert found["fit"]["seed_"] == 0
    assert found["local"] == []


def test_hook_plugins_add_facts(fitted: Any, tmp_path: Path) -> None:
    class Plugin:
        @hookimpl
        def nidl_model_facts(self, estimator: Any) -> Any:
            return {"scanner": "3T", "rows": (1, 2), "class": type(estimator).__name__}

    class Useless:
        @hookimpl
        def nidl_model_facts(self) -> Any:
            return {"an object": object()}

    with hooks.temporary(Plugin()), hooks.temporary(Useless()):
        fitted.save(tmp_path / "m.nidl")
    facts = header(tmp_path / "m.nidl")["facts"]
    assert (facts["scanner"], facts["rows"], facts["class"]) == ("3T", [1, 2], "Tiny")
    assert "an object" not in facts
    assert "python" in facts


def test_what_was_built_is_described_not_what_was_set_afterwards(
    fitted: Any, tmp_path: Path, x: Tensor
) -> None:
    expected = fitted.transform(x)
    fitted.set_params(encoder__width=9, lr=0.5)
    fitted.save(tmp_path / "m.nidl")
    loaded = nidl_core.load(tmp_path / "m.nidl")
    assert torch.equal(loaded.transform(x), expected)
    assert loaded.lr == 0.5


def test_a_registered_class_is_described_by_its_name(
    tiny: Any, flat: Any, x: Tensor, tmp_path: Path
) -> None:
    tiny(encoder=flat, **CPU).fit(x).save(tmp_path / "m.nidl")
    assert header(tmp_path / "m.nidl")["params"]["encoder"] == {
        "name": "session:flat",
        "params": {},
    }
    assert nidl_core.load(tmp_path / "m.nidl").transform(x).shape == (10, 3)


# Saving -------------------------------------------------------------------------------------------


def test_an_unfitted_estimator_cannot_be_saved(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        tiny().save(tmp_path / "m.nidl")
    assert list(tmp_path.iterdir()) == []


def test_an_estimator_that_no_registry_knows_cannot_be_saved(
    tiny: Any, x: Tensor, tmp_path: Path
) -> None:
    class Mine(tiny):  # type: ignore[misc]
        pass

    fitted = Mine(**CPU).fit(x)
    with pytest.raises(ModelFileError) as caught:
        fitted.save(tmp_path / "m.nidl")
    assert str(caught.value) == (
        "cannot save Mine: no registry leads to this class, so load could not find it. Install it as a "
        "plugin, or call nidl_core.estimators.register('mine', Mine) first."
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "where", ["os.replace", "os.fsync", "os.chmod", "zipfile.ZipFile.writestr"]
)
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=repr)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    fitted: Any, path: Path, where: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()

    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    fitted.set_params(lr=0.9)
    with monkeypatch.context() as patch:
        patch.setattr(where, fail)
        with pytest.raises(type(error)):
            fitted.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["model.nidl"]
    fitted.save(path)
    assert nidl_core.load(path).lr == 0.9


def test_a_folder_is_told_with_the_model_in_it(fitted: Any, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model.nidl")
    with pytest.raises(
        ModelFileError, match=r"is a folder, not a model file\. Say .*model\.nidl\.$"
    ):
        nidl_core.load(tmp_path)


def test_saving_to_a_folder_that_is_not_there_leaves_nothing(fitted: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        fitted.save(tmp_path / "gone" / "m.nidl")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        fitted.save(tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_a_model_file_has_the_permissions_of_any_new_file(fitted: Any, tmp_path: Path) -> None:
    fitted.save(tmp_path / "m.nidl")
    (tmp_path / "plain").touch()
    assert stat.S_IMODE((tmp_path / "m.nidl").stat().st_mode) == stat.S_IMODE(
        (tmp_path / "plain").stat().st_mode
    )


def test_a_path_may_be_text_and_relative(fitted: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    fitted.save("m.nidl")
    assert same(nidl_core.load("m.nidl"), fitted)


# Handed-in modules --------------------------------------------------------------------------------


def test_a_handed_in_module_is_local_and_asked_for(
    tiny: Any, flat: Any, x: Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "m.nidl"
    fitted = tiny(encoder=flat((1, 2, 3), width=5), **CPU).fit(x)
    fitted.save(path)
    assert header(path)["local"] == ["encoder"]
    with pytest.raises(MissingComponents) as caught:
        nidl_core.load(path)
    assert str(caught.value) == (
        "Handed in as objects when it was saved, so hand them in again: "
        "load(path, components={'encoder': ...})."
    )
    assert caught.value.missing == ["encoder"]
    assert caught.value.requirements == []

    net = flat((1, 2, 3), width=5)
    before = [p.clone() for p in net.parameters()]
    loaded = nidl_core.load(path, components={"encoder": net})
    assert same(loaded, fitted)
    assert torch.equal(loaded.transform(x), fitted.transform(x))
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize("form", ["unregistered class", "object among its params"])
def test_what_no_name_and_json_can_describe_is_local(
    tiny: Any, flat: Any, x: Tensor, tmp_path: Path, form: str
) -> None:
    class Mine(flat):  # type: ignore[misc]
        pass

    spec = Mine if form == "unregistered class" else {"name": "flat", "params": {"gain": object()}}
    tiny(encoder=spec, **CPU).fit(x).save(tmp_path / "m.nidl")
    assert header(tmp_path / "m.nidl")["local"] == ["encoder"]
    loaded = nidl_core.load(tmp_path / "m.nidl", components={"encoder": spec})
    assert loaded.transform(x).shape == (10, 3)


def test_a_handed_in_module_that_does_not_fit_is_told(
    tiny: Any, flat: Any, x: Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "m.nidl"
    tiny(encoder=flat((1, 2, 3), width=5), **CPU).fit(x).save(path)
    for net in (flat((1, 2, 3), width=6), nn.Flatten()):
        with pytest.raises(ModelFileError, match="do not fit the model that its spec builds here"):
            nidl_core.load(path, components={"encoder": net})


def test_components_of_no_such_parameter_are_refused(path: Path) -> None:
    with pytest.raises(UnknownParameter, match="has no parameter 'encodr'. Did you mean 'encoder'"):
        nidl_core.load(path, components={"encodr": nn.Flatten()})


def test_components_replace_what_the_file_says(path: Path, fitted: Any) -> None:
    loaded = nidl_core.load(path, components={"note": "mine", "lr": 0.75})
    assert (loaded.note, loaded.lr) == ("mine", 0.75)
    assert same(loaded, fitted)


# Missing components -------------------------------------------------------------------------------


def installed_elsewhere(*components: tuple[str, str, str, str]) -> Callable[[Any], None]:
    """A change of the header: these components (kind, name, distribution, version) as well."""

    def change(found: Any) -> None:
        found["components"] += [
            {"kind": k, "id": f"{d}:{n}", "distribution": d, "version": v}
            for k, n, d, v in components
        ]

    return change


def test_all_that_is_missing_stands_in_one_line(path: Path) -> None:
    rewrite(
        path,
        installed_elsewhere(
            ("encoders", "resnet", "nidl-monai", "1.2.3"),
            ("decoders", "resnet", "nidl-monai", "1.2.3"),
            ("likelihoods", "zip", "acme", "0.1"),
            ("losses", "hinge", "other", "2.0.dev1"),
        ),
    )
    with pytest.raises(MissingComponents) as caught:
        nidl_core.load(path)
    assert str(caught.value) == (
        "this model needs encoder 'nidl-monai:resnet', decoder 'nidl-monai:resnet', likelihood "
        "'acme:zip', loss 'other:hinge'. As its file says: pip install 'nidl-monai>=1.2.3,<1.3' "
        "'acme>=0.1,<0.2' 'other'"
    )
    assert caught.value.requirements == ["nidl-monai>=1.2.3,<1.3", "acme>=0.1,<0.2", "other"]
    assert isinstance(caught.value, (ModelFileError, LookupError))
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.missing) == (str(caught.value), caught.value.missing)


def test_what_this_session_registered_is_asked_for(
    tiny: Any, flat: Any, x: Tensor, tmp_path: Path
) -> None:
    class Mine(flat):  # type: ignore[misc]
        pass

    with nidl_core.encoders.temporary("mine", Mine):
        tiny(encoder="mine", **CPU).fit(x).save(tmp_path / "m.nidl")
    with pytest.raises(MissingComponents) as caught:
        nidl_core.load(tmp_path / "m.nidl")
    assert str(caught.value) == (
        "this model needs encoder 'session:mine'. Names that begin with 'session:' were registered by "
        "hand: register them again."
    )
    with nidl_core.encoders.temporary("mine", Mine):
        assert nidl_core.load(tmp_path / "m.nidl").transform(x).shape == (10, 3)
    loaded = nidl_core.load(tmp_path / "m.nidl", components={"encoder": Mine})
    assert loaded.transform(x).shape == (10, 3)


def test_missing_plugins_and_local_modules_are_told_together(
    tiny: Any, flat: Any, x: Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "m.nidl"
    tiny(encoder=flat((1, 2, 3)), **CPU).fit(x).save(path)
    rewrite(path, installed_elsewhere(("losses", "hinge", "acme", "1.0")))
    with pytest.raises(MissingComponents) as caught:
        nidl_core.load(path)
    assert str(caught.value) == (
        "this model needs loss 'acme:hinge'. As its file says: pip install 'acme>=1.0,<1.1' Handed in as "
        "objects when it was saved, so hand them in again: load(path, components={'encoder': ...})."
    )


@pytest.mark.parametrize(
    "distribution",
    [
        "evil; rm -rf ~",
        "--index-url=http://evil",
        "-r evil.txt",
        "../evil",
        "evil @ http://evil",
        "evil evil2",
        "evil'",
        "evil\nevil2",
        "evil\n",
        "evil[extra]",
        "evil==1",
        "$(evil)",
        "",
    ],
)
def test_a_distribution_name_that_is_none_reaches_no_pip_line(
    path: Path, distribution: str
) -> None:
    rewrite(path, installed_elsewhere(("losses", "hinge", distribution, "1.0")))
    with pytest.raises(MissingComponents) as caught:
        nidl_core.load(path)
    assert caught.value.requirements == []
    assert "pip install" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "version", ["1.0; rm -rf ~", "1.0 --pre", "1.0\n", "1.0'", "$(evil)", "", "1", "1.0 evil"]
)
def test_a_version_that_is_none_reaches_no_pip_line(path: Path, version: str) -> None:
    rewrite(path, installed_elsewhere(("losses", "hinge", "acme", version)))
    with pytest.raises(MissingComponents) as caught:
        nidl_core.load(path)
    assert caught.value.requirements == ["acme"]
    assert str(caught.value).endswith("pip install 'acme'")


# Damaged and hostile files ------------------------------------------------------------------------


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    at = content.index(b"input_shape")
    content[at] ^= 0xFF
    path.write_bytes(bytes(content))


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"model": 1}))


def torch_saved(path: Path) -> None:
    torch.save({"state_dict": {}}, path)


def zipped(**members: Any) -> Callable[[Path], None]:
    """A zip with these members (True: that of the file)."""

    def damage(path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            own = {
                "json": archive.read("nidl.json"),
                "weights": archive.read("weights.safetensors"),
            }
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                file = {"json": "nidl.json", "weights": "weights.safetensors"}.get(name, name)
                archive.writestr(file, own[name] if content is True else content)

    return damage


def with_header(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        rewrite(path, change)

    return damage


def without(*keys: str) -> Callable[[Path], None]:
    return with_header(lambda found: {k: v for k, v in found.items() if k not in keys})


def put(**values: Any) -> Callable[[Path], None]:
    return with_header(lambda found: {**found, **values})


ONE = {"kind": "losses", "id": "acme:hinge", "distribution": "acme", "version": "1.0"}
DAMAGED: dict[str, Callable[[Path], None]] = {
    "truncated": truncated,
    "half": half,
    "empty": empty,
    "a flipped byte": flipped,
    "pickle": pickled,
    "torch.save": torch_saved,
    "text": lambda path: path.write_text("hello") and None,
    "zip of nothing": zipped(),
    "zip of something": zipped(other="x"),
    "no header": zipped(weights=True),
    "no weights": zipped(json=True),
    "weights are none": zipped(json=True, weights=b"\x00" * 20),
    "weights are a pickle": zipped(json=True, weights=pickle.dumps({})),
    "header is no JSON": zipped(json="{", weights=True),
    "header is not UTF-8": zipped(json=b"\xff\xfe\xfa", weights=True),
    "header is a list": with_header(lambda _: []),
    "header is a number": with_header(lambda _: 3),
    "header is nested too deeply": zipped(json="[" * 200_000, weights=True),
    "no format": without("format"),
    "format is text": put(format="1"),
    "no params": without("params"),
    "no components": without("components"),
    "no estimator": without("estimator"),
    "no shape": without("input_shape"),
    "no fit": without("fit"),
    "no local": without("local"),
    "params are a list": put(params=[]),
    "components are a dict": put(components={}),
    "a component is text": put(components=["x"]),
    "a component without a version": put(
        components=[{k: v for k, v in ONE.items() if k != "version"}]
    ),
    "a distribution is a number": put(components=[{**ONE, "distribution": 3}]),
    "a version is null": put(components=[{**ONE, "version": None}]),
    "an id is null": put(components=[{**ONE, "id": None}]),
    "a kind of no kind": put(components=[{**ONE, "kind": "gadgets"}]),
    "shape is text": put(input_shape="12"),
    "shape is null": put(input_shape=None),
    "shape is negative": put(input_shape=[1, -2, 3]),
    "fit is a list": put(fit=[]),
    "estimator is null": put(estimator=None),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_a_model_file_error(path: Path, damage: Callable[[Path], None]) -> None:
    damage(path)
    with pytest.raises(ModelFileError) as caught:
        nidl_core.load(path)
    assert not isinstance(caught.value, MissingComponents)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (empty, "BadZipFile: File is not a zip file"),
        (pickled, "BadZipFile: File is not a zip file"),
        (zipped(weights=True), "KeyError: \"There is no item named 'nidl.json' in the archive\""),
    ],
)
def test_the_text_of_a_damaged_file(
    path: Path, damage: Callable[[Path], None], reason: str
) -> None:
    damage(path)
    with pytest.raises(ModelFileError) as caught:
        nidl_core.load(path)
    assert str(caught.value) == (
        f"{path} is not a nidl model file, or it is damaged ({reason}). Model files are written by "
        "estimator.save(path)."
    )


def test_a_newer_format_says_what_to_upgrade(path: Path) -> None:
    rewrite(path, lambda found: {"format": saving.FORMAT + 1, "all else": "may differ"})
    with pytest.raises(ModelFileError) as caught:
        nidl_core.load(path)
    assert str(caught.value) == (
        f"{path} has format {saving.FORMAT + 1}, this nidl-core reads up to {saving.FORMAT}. Upgrade it: "
        "pip install --upgrade nidl-core"
    )


def test_a_missing_file_is_a_file_not_found_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.nidl"):
        nidl_core.load(tmp_path / "gone.nidl")


def test_weights_that_do_not_fit_say_which_versions_do(path: Path) -> None:
    def wider(found: Any) -> None:
        found["params"]["encoder"]["params"]["width"] = 5

    rewrite(path, wider)
    with pytest.raises(ModelFileError) as caught:
        nidl_core.load(path)
    text = str(caught.value)
    assert text.startswith(f"the weights in {path} do not fit the model that its spec builds here.")
    assert "The file was made with session:tiny , session:flat ; install these versions" not in text
    assert "session:tiny" in text
    assert "size mismatch for encoder.layer.weight" in text


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.update(estimator="os:system"),
        lambda h: h.update(estimator="subprocess:Popen"),
        lambda h: h["params"].update(encoder="os.system"),
        lambda h: h["params"].update(encoder={"name": "os:system", "params": {}}),
        lambda h: h["params"].update(encoder={"name": "flat", "params": {"__class__": "x"}}),
        lambda h: h["params"].update(__import__="os"),
        lambda h: h["params"].update(encoder={"__reduce__": ["os.system", ["true"]]}),
    ],
)
def test_a_file_leads_to_names_and_parameters_that_exist_and_to_nothing_else(
    path: Path, change: Callable[[Any], None]
) -> None:
    rewrite(path, change)
    with pytest.raises(NidlError):
        nidl_core.load(path)


@pytest.mark.parametrize(
    "name", ["__class__", "transform", "_fitted", "training", "encoder", "__dict__"]
)
def test_what_a_file_says_of_the_fit_sets_no_other_attribute(path: Path, name: str) -> None:
    rewrite(path, lambda found: found["fit"].update({name: "evil"}))
    try:
        loaded = nidl_core.load(path)
    except ModelFileError:
        return
    assert getattr(loaded, name) != "evil"


def test_loading_never_unpickles(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("unpickled")

    for target in ("pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load"):
        monkeypatch.setattr(target, refuse)
    nidl_core.load(path)
