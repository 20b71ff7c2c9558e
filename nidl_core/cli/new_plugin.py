"""`nidl new-plugin`: a whole distribution with one component, to start from. Imports no torch.

Its files are written from `templates/`. Each kind begins as a small component that is correct as it
stands and passes the conformance kit.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import importlib.metadata
import importlib.util
import json
import keyword
import re
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from string import Template
from typing import Any

from nidl_core.discovery import CORE
from nidl_core.errors import (
    AmbiguousComponent,
    DisabledComponent,
    InvalidParameter,
    NidlError,
    SpecError,
    UnknownComponent,
    singular,
)
from nidl_core.registry import INTERFACE_VERSION, REGISTRIES, registry

LICENCES = ("BSD-3-Clause", "MIT", "Apache-2.0")
_TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class _Start:
    """What a plugin of a kind begins as, how that is used, and what its tests need."""

    summary: str
    use: str
    tests_need: tuple[str, ...] = ()


_STARTS = {
    "likelihoods": _Start(
        "a Student-t with fixed degrees of freedom and scale",
        'nidl.build("vae", encoder="mlp", decoder="mlp", likelihood="{name}")',
        tests_need=("scipy>=1.10",),
    ),
    "encoders": _Start(
        "a fully connected network with one hidden layer",
        'nidl.build("vae", encoder="{name}", decoder="mlp")',
    ),
    "decoders": _Start(
        "a fully connected network with one hidden layer",
        'nidl.build("vae", encoder="mlp", decoder="{name}")',
    ),
    "losses": _Start(
        "the negative evidence lower bound with free bits",
        'nidl.build("vae", encoder="mlp", decoder="mlp", loss="{name}")',
    ),
    "estimators": _Start(
        "an auto-encoder with one hidden layer each way",
        'nidl.build("{name}", latent_dim=8)',
    ),
    "hooks": _Start("how many numbers were trained, kept in each saved model", ""),
}
_KINDS = {**{singular(kind): kind for kind in _STARTS}, **{kind: kind for kind in _STARTS}}


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the commands of this module."""
    new = commands.add_parser("new-plugin", help="write a new distribution with one component")
    nouns = ", ".join(singular(kind) for kind in REGISTRIES) + ", hooks"
    new.add_argument("kind", choices=tuple(_KINDS), metavar="KIND", help=nouns)
    new.add_argument("name", metavar="NAME", help="what it will be called by, e.g. student_t")
    new.add_argument("--distribution", metavar="DIST", help="what pip installs (nidl-NAME)")
    new.add_argument("--into", metavar="FOLDER", type=Path, default=Path(), help="where (here)")
    new.add_argument(
        "--license", choices=LICENCES, default=LICENCES[0], help=f"of its code ({LICENCES[0]})"
    )
    new.add_argument("--author", metavar="NAME", help="for the licence (The DIST developers)")
    new.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    folder = new_plugin(
        arguments.kind,
        arguments.name,
        distribution=arguments.distribution,
        into=arguments.into,
        license=arguments.license,
        author=arguments.author,
    )
    print(f"{folder} is written. Next:\n")
    print(f"  cd {shlex.quote(str(folder))}")
    print("  pip install -e '.[test]'")
    print("  python -m pytest")
    return 0


def new_plugin(
    kind: str,
    name: str,
    *,
    distribution: str | None = None,
    into: Path = Path(),
    license: str = LICENCES[0],
    author: str | None = None,
) -> Path:
    """Write the folder `into/distribution`, all of it or nothing; returns its path.

    Raises `InvalidParameter` for a name that cannot be used, `SpecError` for one that is taken, and
    `NidlError` if the folder is there already or the disk refuses.
    """
    kind = _KINDS[kind]
    distribution = distribution or f"nidl-{name.replace('_', '-')}"
    author = author or f"The {distribution} developers"
    package = re.sub(r"[-_.]+", "_", distribution).lower()
    class_name = "".join(word.capitalize() for word in name.split("_"))
    _check_form(name, distribution, package, author)
    _check_free(kind, name, distribution, package)
    folder = into / distribution
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise NidlError(
            f"{folder} is there already. Choose another name, or --into another folder."
        )
    values = _values(kind, name, class_name, distribution, package, license, author)
    texts = {path: _filled(template, values) for path, template in _files(kind, values).items()}
    _check_class(class_name, name, texts[f"src/{package}/{name}.py"])
    _write(folder, texts)
    return folder


def _check_form(name: str, distribution: str, package: str, author: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise InvalidParameter(
            "NAME",
            name,
            "lower-case words joined by underscores, e.g. student_t, no Python keyword",
        )
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", distribution) or (
        not package.isidentifier() or keyword.iskeyword(package)
    ):
        raise InvalidParameter(
            "--distribution",
            distribution,
            "letters and digits joined by hyphens, e.g. nidl-student-t",
        )
    if not author.isprintable() or "," in author:
        raise InvalidParameter("--author", author, "one line without commas")


def _check_free(kind: str, name: str, distribution: str, package: str) -> None:
    if kind in REGISTRIES and (owners := _owners(kind, name)):
        taken = " and ".join(repr(owner) for owner in owners)
        raise SpecError(
            f"the {singular(kind)} name {name!r} is taken by {taken}. Choose another name."
        )
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        pass
    else:
        raise SpecError(
            f"{distribution} {version} is installed: that name is taken. Choose another name, or "
            "another --distribution."
        )
    if found := importlib.util.find_spec(package):
        raise SpecError(
            f"the module name {package!r} is taken by {found.origin or 'a folder'}. Choose another "
            "--distribution."
        )


def _owners(kind: str, name: str) -> list[str]:
    """The full ids behind a name, of installed plugins and of those that this nidl-core knows of."""
    try:
        return [registry(kind).entry(name).id]
    except (AmbiguousComponent, DisabledComponent) as taken:
        return taken.ids
    except UnknownComponent as miss:
        return [] if miss.close else [f"{provider}:{name}" for provider in miss.providers]


def _check_class(class_name: str, name: str, source: str) -> None:
    """Raise `InvalidParameter` if the class would hide a name that Python or its own file needs."""
    used = {*dir(builtins), *keyword.kwlist}
    if class_name not in used:
        imports = [
            n for n in ast.walk(ast.parse(source)) if isinstance(n, (ast.Import, ast.ImportFrom))
        ]
        used.update(alias.name for node in imports for alias in node.names)
    if class_name in used:
        raise InvalidParameter(
            "NAME",
            name,
            f"another: the class would be called {class_name}, as one that its file uses",
        )


def _values(
    kind: str,
    name: str,
    class_name: str,
    distribution: str,
    package: str,
    license: str,
    author: str,
) -> dict[str, str]:
    """What the templates speak of."""
    start, core = _STARTS[kind], _core_range()
    values = {
        "kind": kind,
        "name": name,
        "Class": class_name,
        "distribution": distribution,
        "package": package,
        "what": f"The {singular(kind)} {name}",
        "summary": start.summary,
        "use": _USE.format(name=name, code=start.use.format(name=name)),
        "proof": _PROOF.format(distribution=distribution),
        "backends": "eager, compile, bf16, ddp",
        "exports": _EXPORTS.format(package=package, name=name, class_name=class_name),
        "target": f"{package}.{name}:{class_name}",
        "requirements": _toml_list(f"nidl-core{core}", "torch>=2.4"),
        "test_requirements": _toml_list(f"nidl-core[testing]{core}", *start.tests_need),
        "interface_version": str(INTERFACE_VERSION),
        "license": license,
        "author": author,
        "author_in_toml": json.dumps(author, ensure_ascii=False),
        "year": str(date.today().year),
    }
    if kind == "hooks":  # a module of functions, which the conformance kit has no checks for
        values |= {
            "what": "Hooks",
            "use": _USE_OF_HOOKS.format(distribution=distribution),
            "proof": "nidl doctor --load",
            "backends": "eager",
            "exports": "",
            "target": f"{package}.{name}",
            "requirements": _toml_list(f"nidl-core{core}"),
        }
    return values


_EXPORTS = '\n\nfrom {package}.{name} import {class_name}\n\n__all__ = ["{class_name}"]'
_USE = """```python
import nidl_core as nidl

model = {code}
```

`nidl show {name}` lists its parameters."""
_USE_OF_HOOKS = """Once installed, it answers nidl's events by itself. `NIDL_DISABLE_PLUGINS={distribution}`
in the environment leaves it out."""
_PROOF = """nidl check {distribution}
NIDL_TEST_BACKEND=compile python -m pytest  # also bf16, ddp; and NIDL_TEST_DEVICE=cuda"""


def _files(kind: str, values: Mapping[str, str]) -> dict[str, str]:
    """Path in the new folder -> template; "" for an empty file."""
    package, noun = f"src/{values['package']}", singular(kind)
    return {
        ".github/workflows/test.yml": "test.yml",
        ".gitignore": "gitignore",
        "CHANGELOG.md": "CHANGELOG.md",
        "LICENSE": f"licences/{values['license']}",
        "README.md": "README.md",
        "pyproject.toml": "pyproject.toml",
        f"{package}/__init__.py": "init.py",
        f"{package}/{values['name']}.py": f"kinds/{noun}.py",
        f"{package}/py.typed": "",
        "tests/test_behaviour.py": f"kinds/test_{noun}.py",
        **({} if kind == "hooks" else {"tests/test_conformance.py": "test_conformance.py"}),
    }


def _filled(template: str, values: Mapping[str, str]) -> str:
    if not template:
        return ""
    text = _TEMPLATES.joinpath(f"{template}.tmpl").read_text(encoding="utf-8")
    return Template(text).substitute(values)


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    """Write all files beside the place where they belong, then move them there in one step."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".nidl-") as beside:
            made = Path(beside, "made")
            for path, text in texts.items():
                file = made / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8", newline="\n")
            if folder.exists():
                folder.rmdir()  # it is empty; Windows renames onto nothing
            made.rename(folder)
    except OSError as err:
        raise NidlError(f"cannot write {folder}: {err}.") from err


def _core_range() -> str:
    """The range of nidl-core that this one's interfaces are promised for."""
    from packaging.version import Version

    core = Version(importlib.metadata.version(CORE))
    low = core.public if core.is_prerelease else f"{core.major}.{core.minor}.0"
    return f">={low},<{core.major}.{core.minor + 1}"


def _toml_list(*texts: str) -> str:
    return f"[{', '.join(json.dumps(text) for text in texts)}]"
