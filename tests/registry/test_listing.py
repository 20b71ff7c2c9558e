"""Listing, and every answer to a wrong name, import nothing heavy and take no time."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest

import nidl_core

HEAVY = ("torch", "lightning", "sklearn", "numpy")
LISTING = "nidl_core.available('encoders')"
WRONG_NAME = """
try:
    {call}
except nidl_core.NidlError as err:
    assert 'Did you mean' in str(err) or 'nstalled' in str(err), err
else:
    raise AssertionError('no error')
"""
IMPORT_FREE = {
    "import": "pass",
    "list": LISTING,
    "list all kinds": "from nidl_core.registry import REGISTRIES; [r.entries() for r in REGISTRIES.values()]",
    "describe": "nidl_core.encoders.entry('mine').id",
    "describe in full": "nidl_core.encoders.entry('acme:mine').target",
    "version": "nidl_core.__version__",
    "dir": "dir(nidl_core)",
    "unknown name": WRONG_NAME.format(call="nidl_core.encoders.get('nope')"),
    "near name": WRONG_NAME.format(call="nidl_core.encoders.get('min')"),
    "known to the catalogue": WRONG_NAME.format(call="nidl_core.encoders.get('cnn3d')"),
    "unknown estimator": WRONG_NAME.format(call="nidl_core.build('nope')"),
    "unknown estimator with components": WRONG_NAME.format(
        call="nidl_core.build('nope', encoder='mine', max_epochs=1)"
    ),
    "unknown to describe": WRONG_NAME.format(call="nidl_core.losses.entry('nope')"),
    "unknown to build": WRONG_NAME.format(call="nidl_core.likelihoods.build('nope', scale=1)"),
    "unknown to unregister": WRONG_NAME.format(call="nidl_core.encoders.unregister('nope')"),
}


@pytest.mark.parametrize("code", IMPORT_FREE.values(), ids=IMPORT_FREE)
def test_imports_nothing_heavy_and_no_plugin(site: Any, code: str) -> None:
    for name in (*HEAVY, "acme"):
        site.module(name, f"raise AssertionError('{name} was imported')")
    site.add("acme", {"mine": "acme:Mine"})
    result = site.run(f"import nidl_core\n{code}\nimport sys\nprint(sorted(sys.modules))")
    assert result.returncode == 0, result.stderr
    assert not {*HEAVY, "acme"} & set(eval(result.stdout.splitlines()[-1]))


def real_process(*options: str, code: str) -> subprocess.CompletedProcess[str]:
    """A fresh process in the environment that the tests run in, with all that it has."""
    command = [sys.executable, *options, "-c", f"import nidl_core\n{code}"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)


def test_importtime_of_listing_names_nothing_heavy() -> None:
    lines = real_process("-X", "importtime", code=LISTING).stderr.splitlines()
    imported = {
        line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")
    }
    assert "nidl_core.errors" in imported
    assert not {name for name in imported if name.partition(".")[0] in HEAVY}


@pytest.mark.parametrize("what", ["list", "unknown name", "unknown estimator"])
def test_answers_within_0_3_seconds(what: str) -> None:
    def seconds() -> float:
        start = time.perf_counter()
        real_process(code=IMPORT_FREE[what])
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.3


def test_no_kind_of_that_name_lists_the_kinds() -> None:
    with pytest.raises(nidl_core.NidlError) as caught:
        nidl_core.available("encoder")
    assert str(caught.value) == (
        "there is no kind 'encoder'. Kinds: estimators, encoders, decoders, likelihoods, losses."
    )


def test_names_and_entries_are_sorted_and_complete(site: Any) -> None:
    site.add("zeta", {"b": "zeta:B", "a": "zeta:A"})
    site.add("acme", {"c": "acme:C [extra]", "b": "acme:B"}, version="2.1")
    site.add("elsewhere", {"d": "elsewhere:D"}, group="nidl.decoders")
    nidl_core.encoders.refresh()
    assert nidl_core.available("encoders") == ["a", "b", "c"]
    assert nidl_core.available("decoders") == ["d"]
    assert nidl_core.available("losses") == []
    found = [(e.id, e.version, e.target) for e in nidl_core.encoders.entries()]
    assert found == [
        ("zeta:a", "1.0", "zeta:A"),
        ("acme:b", "2.1", "acme:B"),
        ("zeta:b", "1.0", "zeta:B"),
        ("acme:c", "2.1", "acme:C"),
    ]


def test_dir_shows_every_public_name_before_any_is_used() -> None:
    shown = real_process(code="print(*dir(nidl_core))").stdout.split()
    assert set(nidl_core.__all__) <= set(shown)
    assert len(nidl_core.__all__) == len(set(nidl_core.__all__))


def test_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'nidl_core' has no attribute 'encodes'"):
        _ = nidl_core.encodes


def test_without_any_plugin_the_list_says_what_to_install(site: Any) -> None:
    result = site.run("import sys; from nidl_core.cli import main; sys.exit(main(['list']))")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == (
        "No components are installed. Begin with: pip install 'nidl-core[all]'\n"
    )
