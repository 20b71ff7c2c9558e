"""Model files: JSON and safetensors in one zip. Nothing in them is imported, evaluated or unpickled.

`nidl.json` holds the format version, the estimator's id, its parameters with each component's id,
the shape of the data and what the fit left behind; `weights.safetensors` the state dict.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import re
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from sklearn.utils.validation import check_is_fitted

from nidl_core import hooks
from nidl_core.assembly import split_spec
from nidl_core.discovery import CORE
from nidl_core.errors import MissingComponents, ModelFileError, UnknownComponent, singular
from nidl_core.registry import REGISTRIES, SESSION, Entry, estimators, registry

FORMAT = 1
_JSON, _WEIGHTS = "nidl.json", "weights.safetensors"
_DAMAGE = (
    zipfile.BadZipFile,
    KeyError,
    NotImplementedError,
    OSError,
    RecursionError,
    SafetensorError,
    TypeError,
    ValueError,
)
_EPOCH = (1980, 1, 1, 0, 0, 0)  # a fixed date, so that equal models are equal files
# What a fit leaves behind.
_FIT = ("seed_", "history_", "n_features_in_", "feature_names_in_", "data_spec_")
_PROVENANCE = ("kind", "id", "distribution", "version")
_LOST = object()  # what JSON cannot hold


def save(estimator: Any, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator to `path`, replacing what was there in one step.

    Objects among its parameters (callbacks, loggers, generators) are left out, and named in a
    warning; handed-in modules are recorded as local. Raises NotFittedError, or `ModelFileError`
    for an estimator whose class no registry knows.
    """
    check_is_fitted(estimator)
    entry = estimators.entry_of(type(estimator))
    if entry is None:
        name = type(estimator).__name__
        raise ModelFileError(
            f"cannot save {name}: no registry leads to this class, so load could not find it. Install "
            f"it as a plugin, or call nidl_core.estimators.register({name.lower()!r}, {name}) first."
        )
    params, local, used = _described(estimator)
    header = {
        "format": FORMAT,
        "nidl_core": importlib.metadata.version(CORE),
        "estimator": entry.id,
        "params": params,
        "local": local,
        "components": [_provenance(name, e) for name, e in [("", entry), *used.items()]],
        "input_shape": list(estimator.input_shape_),
        "fit": {name: _left_behind(estimator, name) for name in _FIT},
        "facts": _facts(estimator),
    }
    for name, value in estimator.state_dict().items():
        if not isinstance(value, torch.Tensor):
            raise ModelFileError(
                f"cannot save {name}: it is {type(value).__name__}, and a model file holds tensors. Keep "
                "such state in a buffer instead of get_extra_state."
            )
    # A tensor that two names share is written twice; the built model ties them again.
    state = {k: v.detach().cpu().contiguous().clone() for k, v in estimator.state_dict().items()}
    _replace(
        Path(path),
        {
            _JSON: json.dumps(header, indent=1, allow_nan=True).encode(),
            _WEIGHTS: safetensors.torch.save(state),
        },
    )


def load(path: str | os.PathLike[str], *, components: Mapping[str, Any] | None = None) -> Any:
    """The fitted estimator in a model file.

    Parameters
    ----------
    path : path
        A file written by `save`.
    components : dict, optional
        The modules that had been handed in, by parameter: `{"encoder": net}`. Copies of them get
        the saved weights. An entry for any other parameter replaces what the file says of it.

    Raises
    ------
    MissingComponents
        If plugins or handed-in modules are missing: all of them, with one `pip install` line.
    ModelFileError
        If the file is damaged, of a newer format, or does not fit the installed components.
    """
    header, weights = _read(Path(path))
    given = dict(components or {})
    _check_present(header, given)
    estimator = estimators.get(header["estimator"])(**{**header["params"], **given})
    shape = tuple(header["input_shape"])
    estimator.assemble(torch.zeros(1, *shape), weights.get("data_mask"))
    for name, value in estimator.state_dict(keep_vars=True).items():
        if name in weights:  # a fit in double precision leaves double weights
            value.data = value.data.to(weights[name].dtype)
    try:
        estimator.load_state_dict(weights)
    except RuntimeError as err:
        made = ", ".join(f"{c['id']} {c['version']}".strip() for c in header["components"])
        raise ModelFileError(
            f"the weights in {path} do not fit the model that its spec builds here. The file was made "
            f"with {made}; install these versions, or hand in the modules it was saved with. ({err})"
        ) from err
    estimator.input_shape_ = shape
    for name in _FIT:
        value = header["fit"].get(name)
        if value is not None:
            names = name == "feature_names_in_"
            setattr(estimator, name, np.asarray(value, dtype=object) if names else value)
    estimator._fitted = True
    return estimator


def _described(estimator: Any) -> tuple[dict[str, Any], list[str], dict[str, Entry]]:
    """Parameters as plain data, those that are local objects, and the components' entries."""
    given = {**estimator._given, **estimator._built_from}
    accepted = estimator.get_params(deep=False)  # a subclass may make the others from these itself
    params: dict[str, Any] = {}
    local: list[str] = []
    used: dict[str, Entry] = {}
    left_out: list[str] = []
    for name, value in given.items():
        kind = estimator.components.get(name)
        if kind is None:
            plain = _plain(value)
        elif (spec := estimator.spec_of(name, given)) is None:
            plain = None
        else:
            component, inner = split_spec(kind, spec)
            entry = _entry(kind, component)
            plain = {p: _plain(v) for p, v in inner.items()}
            if entry is not None:
                used[name] = entry
            if entry is None or _LOST in plain.values():
                local += [name] if name in accepted else []
                continue
            # None was given, and stays: it means what it meant.
            plain = None if value is None else {"name": entry.id, "params": plain}
        if name not in accepted:
            continue
        if plain is _LOST:
            left_out.append(f"{name} ({type(value).__name__})")
        else:
            params[name] = plain
    if left_out:
        warnings.warn(
            f"objects are not stored in a model file, left out: {', '.join(left_out)}. Set them again "
            "after loading, with set_params.",
            UserWarning,
            stacklevel=4,
        )
    return params, local, used


def _entry(kind: str, component: Any) -> Entry | None:
    if isinstance(component, str):
        return registry(kind).entry(component)
    return None if component is None else registry(kind).entry_of(component)


def _provenance(parameter: str, entry: Entry) -> dict[str, str]:
    return {
        "parameter": parameter,
        "kind": entry.kind,
        "id": entry.id,
        "distribution": entry.distribution,
        "version": entry.version,
    }


def _left_behind(estimator: Any, name: str) -> Any:
    value = getattr(estimator, name, None)
    return _plain(value.tolist() if isinstance(value, np.ndarray) else value)


def _facts(estimator: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for plugin, answer in hooks.collect("nidl_model_facts", estimator=estimator):
        plain = _plain(answer)
        if isinstance(plain, dict):
            facts = {**plain, **facts}  # who is asked first has the say
        else:
            err = TypeError(f"facts must be a dict of plain data, got {answer!r:.80}")
            hooks.record(plugin, "nidl_model_facts", err)
    return facts


def _plain(value: Any) -> Any:
    """The value as JSON holds it, or `_LOST`."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (list, tuple)):
        items = [_plain(v) for v in value]
        return _LOST if any(v is _LOST for v in items) else items
    if isinstance(value, Mapping) and all(isinstance(k, str) for k in value):
        pairs = {k: _plain(v) for k, v in value.items()}
        return _LOST if any(v is _LOST for v in pairs.values()) else pairs
    return _LOST


def _replace(path: Path, members: Mapping[str, bytes]) -> None:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: the folder {path.parent} does not exist.")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for name, content in members.items():
                    archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp is private; a model file is not
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    if path.is_dir():
        hint = f" Say {path / 'model.nidl'}." if (path / "model.nidl").is_file() else ""
        raise ModelFileError(f"{path} is a folder, not a model file.{hint}")
    with path.open("rb") as file:  # a missing file is told as what it is
        content = io.BytesIO(file.read())
    try:
        with zipfile.ZipFile(content) as archive:
            header = json.loads(archive.read(_JSON))
            if header["format"] > FORMAT:
                raise ModelFileError(
                    f"{path} has format {header['format']}, this nidl-core reads up to {FORMAT}. "
                    f"Upgrade it: pip install --upgrade {CORE}"
                )
            _check_form(header)
            weights = safetensors.torch.load(archive.read(_WEIGHTS))
            # Copies are aligned as torch aligns, slices of the file's bytes are not.
            return header, {name: value.clone() for name, value in weights.items()}
    except _DAMAGE as err:
        if isinstance(err, ModelFileError):
            raise
        if zipfile.is_zipfile(content) and any(
            name.endswith("data.pkl") for name in zipfile.ZipFile(content).namelist()
        ):
            raise ModelFileError(
                f"{path} is a PyTorch or Lightning checkpoint, not a model file. fit(..., "
                "ckpt_path=path) goes on from it; a fitted estimator takes its weights by "
                "load_state_dict(torch.load(path, weights_only=True)['state_dict'])."
            ) from None
        raise ModelFileError(
            f"{path} is not a nidl model file, or it is damaged ({type(err).__name__}: {err}). Model "
            "files are written by estimator.save(path)."
        ) from err


def _check_form(header: Mapping[str, Any]) -> None:
    """Raise TypeError or KeyError unless the header has the parts that `load` reads."""
    forms = {"estimator": str, "params": dict, "local": list, "components": list, "fit": dict}
    for name, form in {**forms, "input_shape": list}.items():
        if not isinstance(header[name], form):
            raise TypeError(f"{name!r} in {_JSON} is not a {form.__name__}")
    for component in header["components"]:
        if not all(isinstance(component[k], str) for k in _PROVENANCE):
            raise TypeError(f"a component in {_JSON} is not described by text")
        if component["kind"] not in REGISTRIES:
            raise ValueError(f"{component['kind']!r} in {_JSON} is no kind of component")
    if not all(isinstance(n, int) and n > 0 for n in header["input_shape"]):
        raise ValueError(f"'input_shape' in {_JSON} is no shape")


def _check_present(header: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Name everything that is missing at once, before anything is built."""
    missing, requirements = [], []
    for component in header["components"]:
        kind, name, distribution = component["kind"], component["id"], component["distribution"]
        if component.get("parameter") in given:
            continue
        try:
            registry(kind).entry(name)
        except UnknownComponent:
            missing.append(f"{singular(kind)} {name!r}")
            requirement = _requirement(distribution, component["version"])
            if requirement and requirement not in requirements:
                requirements.append(requirement)
    local = [name for name in header["local"] if name not in given]
    if not missing and not local:
        return
    sentences = []
    if missing:
        sentences.append(f"this model needs {', '.join(missing)}.")
    if requirements:
        quoted = " ".join(f"'{r}'" for r in requirements)
        sentences.append(f"As its file says: pip install {quoted}")
    if any(f"'{SESSION}:" in text for text in missing):
        sentences.append(
            "Names that begin with 'session:' were registered by hand: register them again."
        )
    if local:
        example = ", ".join(f"{name!r}: ..." for name in local)
        sentences.append(
            f"Handed in as objects when it was saved, so hand them in again: "
            f"load(path, components={{{example}}})."
        )
    text = " ".join(sentences)
    raise MissingComponents(text, missing=[*missing, *local], requirements=requirements)


def _requirement(distribution: str, version: str) -> str | None:
    """A pip requirement for a release like the one that was used. The file is not trusted."""
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", distribution):
        return None
    numbers = re.fullmatch(r"(\d+)\.(\d+)(\.\d+)*", version)
    if distribution == SESSION or not numbers:
        return None if distribution == SESSION else distribution
    return f"{distribution}>={version},<{numbers[1]}.{int(numbers[2]) + 1}"
