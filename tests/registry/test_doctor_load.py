"""`nidl doctor --load`: every plugin in a process of its own, whatever it does there."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

EXAMINE = """
import json
from nidl_core.doctor import examine
print(json.dumps(examine(load=True, timeout={timeout})))
"""
CLASS = """
from nidl_core import Encoder
class T(Encoder):
    def __init__(self, input_shape): ...
    def forward(self, x): ...
"""
# As much of torch as nidl_core.interfaces and the doctor look at.
TORCH = """
import sys, types
__version__ = "9.9"
threads, dtype, seed = 2, "float32", [1, 2, 3]
class Tensor:
    def add(self): ...
class Module:
    def forward(self): ...
class Distribution: ...
def get_num_threads(): return threads
def set_num_threads(n): global threads; threads = n
def get_default_dtype(): return dtype
def set_default_dtype(d): global dtype; dtype = d
def get_rng_state(): return list(seed)
def manual_seed(n): seed[:] = [n]
def isfinite(x): ...
def relu(x): ...
nn, distributions = types.ModuleType("torch.nn"), types.ModuleType("torch.distributions")
nn.functional = types.ModuleType("torch.nn.functional")
nn.Module, nn.functional.gelu, distributions.Distribution = Module, relu, Distribution
for module in (nn, nn.functional, distributions):
    sys.modules[module.__name__] = module
"""


@pytest.fixture
def torch(whole: Any) -> Any:
    """A site where nothing is amiss, with a stand-in for torch."""
    whole.module("torch", TORCH)
    return whole


def examine(site: Any, timeout: float = 30, **how: Any) -> dict[str, Any]:
    return site.ask(EXAMINE.format(timeout=timeout), **how)  # type: ignore[no-any-return]


def add_bad(site: Any, bad: str, after: str = "") -> None:
    site.add("nidl-bad", {"bad": "bad:T"}, modules={"bad": f"{bad}\n{CLASS}\n{after}"})


def bad_and_good(site: Any, bad: str) -> None:
    add_bad(site, bad)
    site.add("nidl-good", {"good": "good:T"}, modules={"good": CLASS})


def status(report: dict[str, Any], name: str) -> str:
    """Of the component `name`."""
    found = [c for one in report["distributions"] for c in one["components"] if c["name"] == name]
    return found[0]["status"]  # type: ignore[no-any-return]


def test_what_is_well_is_timed_with_torch_apart(torch: Any) -> None:
    torch.module("torch", f"import time\ntime.sleep(0.3)\n{TORCH}")
    points = {"slow": "slow:T", "quick": "quick:T"}
    modules = {"slow": f"import time\ntime.sleep(0.2)\n{CLASS}", "quick": CLASS}
    torch.add("nidl-acme", points, modules=modules)
    report = examine(torch)
    assert (report["problems"], report["notes"]) == ([], [])
    assert report["torch"]["version"] == "9.9"
    assert 0.3 <= report["torch"]["seconds"] < 3
    seconds = {c["name"]: c["seconds"] for c in report["distributions"][0]["components"]}
    assert seconds["slow"] >= 0.2
    assert seconds["quick"] < 0.2


def test_the_caller_imports_none_of_it(torch: Any) -> None:
    bad_and_good(torch, "")
    code = (
        EXAMINE.format(timeout=30)
        + "import sys; assert not {'torch', 'bad', 'good'} & set(sys.modules)"
    )
    assert torch.run(code).returncode == 0


FATAL = {
    "exits": ("import sys; sys.exit('no licence')", "SystemExit: no licence"),
    "raises": ("import gone_missing", "ModuleNotFoundError: No module named 'gone_missing'"),
    "ends the process": (
        "import os; os._exit(3)",
        "the import ends Python, with exit status 3",
    ),
    "ends it as if all were well": (
        "import os; os._exit(0)",
        "the import ends Python, with exit status 0",
    ),
    "crashes": (
        "import ctypes; ctypes.string_at(0)",
        "the import kills Python (SIGSEGV)",
    ),
    "never ends": (
        "import time; time.sleep(99)",
        "the import has not ended after 1.5 s",
    ),
    "deadlocks": (
        "import importlib, threading\n"
        "t = threading.Thread(target=importlib.import_module, args=('bad',)); t.start(); t.join()",
        "the import has not ended after 1.5 s",
    ),
}


@pytest.mark.parametrize(("source", "reason"), FATAL.values(), ids=FATAL)
def test_one_that_cannot_be_imported_is_told_and_the_others_are_tried(
    torch: Any, source: str, reason: str
) -> None:
    bad_and_good(torch, source)
    report = examine(torch, timeout=1.5)
    (problem,) = report["problems"]
    assert problem == {
        "what": "broken",
        "about": "nidl-bad",
        "text": f"the encoder 'bad' of nidl-bad 1.0 cannot be used (bad:T): {reason}",
        "remedy": "NIDL_DISABLE_PLUGINS=nidl-bad leaves it out. Upgrade, repair or uninstall nidl-bad.",
    }
    assert (status(report, "bad"), status(report, "good")) == (reason, "ok")


def test_the_rest_of_a_distribution_is_tried_after_one_that_takes_python_along(torch: Any) -> None:
    points = {"a": "good:T", "b": "bad:T", "c": "bad:U", "d": "good:T", "e": "other:T"}
    modules = {"bad": f"import os; os._exit(3)\n{CLASS}", "good": CLASS, "other": CLASS}
    torch.add("nidl-acme", points, modules=modules)
    report = examine(torch)
    reason = "the import ends Python, with exit status 3"
    expected = {"a": "ok", "b": reason, "c": reason, "d": "ok", "e": "ok"}
    assert {name: status(report, name) for name in points} == expected


def test_what_a_plugin_starts_does_not_outlive_the_doctor(torch: Any) -> None:
    spawn = "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {child!r}])\n"
    child = f"import time; time.sleep(3); open({str(torch.folder / 'alive')!r}, 'w')"
    bad_and_good(torch, spawn.format(child=child))
    began = time.monotonic()
    assert status(examine(torch), "bad") == "ok"
    time.sleep(max(0, 4 - (time.monotonic() - began)))
    assert not (torch.folder / "alive").exists()


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("class T: pass", "bad:T does not derive from nidl_core.interfaces:Encoder."),
        ("T.interface_version = 99", "it is made for interface version 99"),
        ("T = T(None)", "bad:T is not a class but 'T'."),
    ],
)
def test_what_is_imported_is_checked_against_its_interface(
    torch: Any, source: str, text: str
) -> None:
    add_bad(torch, "", after=source)
    (problem,) = examine(torch)["problems"]
    assert problem["what"] == "broken"
    assert text in problem["text"]


SIDE_EFFECTS = {
    "prints": ("print('banner')", "prints to standard output: 'banner'"),
    "writes": ("import os; os.write(1, b'raw')", "prints to standard output: 'raw'"),
    "has a child print": (
        "import subprocess; subprocess.run(['echo', 'shell'])",
        "prints to standard output: 'shell'",
    ),
    "threads": (
        "import torch; torch.set_num_threads(1)",
        "changes the number of torch threads, for everybody",
    ),
    "dtype": (
        "import torch; torch.set_default_dtype('float64')",
        "changes torch's default dtype, for everybody",
    ),
    "seeds torch": (
        "import torch; torch.manual_seed(0)",
        "changes torch's random state, for everybody",
    ),
    "seeds Python": (
        "import random; random.seed(0)",
        "changes Python's random state, for everybody",
    ),
    "patches": (
        "import torch\ntorch.relu = torch.Tensor.add = torch.nn.Module.forward = lambda x: x",
        "changes torch.relu, torch.Tensor.add, torch.nn.Module.forward, for everybody",
    ),
    "patches functional": (
        "from torch.nn import functional as F\nF.gelu = lambda x: x",
        "changes torch.nn.functional.gelu, for everybody",
    ),
    "leaves a thread": (
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(99,), name='poller').start()",
        "leaves threads running: poller",
    ),
}


@pytest.mark.parametrize(("source", "text"), SIDE_EFFECTS.values(), ids=SIDE_EFFECTS)
def test_what_an_import_does_to_its_neighbours_is_a_problem(
    torch: Any, source: str, text: str
) -> None:
    add_bad(torch, source)
    report = examine(torch)
    (problem,) = report["problems"]
    assert (problem["what"], problem["about"]) == ("side-effect", "nidl-bad")
    assert problem["text"] == f"the import of the encoder 'bad' of nidl-bad 1.0 {text}"
    assert problem["remedy"]
    assert report["notes"] == []
    assert status(report, "bad") == "ok"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("import warnings; warnings.warn('old')", "warns: UserWarning: old"),
        (
            "import sys; print('hello', file=sys.stderr)",
            "writes to standard error: 'hello'",
        ),
    ],
)
def test_what_is_only_a_nuisance_is_a_note(torch: Any, source: str, text: str) -> None:
    add_bad(torch, source)
    report = examine(torch)
    assert report["problems"] == []
    assert [note["text"] for note in report["notes"]] == [
        f"the import of the encoder 'bad' of nidl-bad 1.0 {text}"
    ]


def test_one_that_takes_long_is_a_note(torch: Any) -> None:
    torch.add("nidl-bad", {"bad": "bad:T"}, modules={"bad": f"import time; time.sleep(0.6){CLASS}"})
    code = f"from nidl_core import discovery\ndiscovery.SLOW = 0.5\n{EXAMINE.format(timeout=30)}"
    report = torch.ask(code)
    assert report["problems"] == []
    (note,) = report["notes"]
    assert note["text"].startswith("the import of the encoder 'bad' of nidl-bad 1.0 takes 0.")


MARK = "from nidl_core.hooks import hookimpl\n"


def test_hook_plugins_are_tried_too(torch: Any) -> None:
    good = f"{MARK}@hookimpl\ndef nidl_as_dataset(data): ..."
    misspelt = f"{MARK}@hookimpl\ndef nidl_as_datset(data): ..."
    heavy = f"import torch\ntorch.relu = None\n{good}"
    sources = {"good": good, "misspelt": misspelt, "heavy": heavy, "broken": "1 / 0"}
    for name, source in sources.items():
        torch.add(f"nidl-{name}", {name: name}, group="nidl.hooks", modules={name: source})
    report = examine(torch)
    texts = sorted(problem["text"] for problem in report["problems"])
    assert texts == [
        "the hook plugin 'broken' of nidl-broken 1.0 cannot be used (broken): ZeroDivisionError: "
        "division by zero",
        "the hook plugin 'misspelt' of nidl-misspelt 1.0 cannot be used (misspelt): it implements "
        "nidl_as_datset, which is no hook. Did you mean nidl_as_dataset?",
        "the import of the hook plugin 'heavy' of nidl-heavy 1.0 changes torch.relu, for everybody",
    ]
    assert [note["text"] for note in report["notes"]] == [
        "the hook plugin 'heavy' of nidl-heavy 1.0 imports torch, for which `nidl --help` has to wait"
    ]


def test_what_is_disabled_is_not_imported(torch: Any) -> None:
    touch = f"open({str(torch.folder / 'imported')!r}, 'w')"
    bad_and_good(torch, touch)
    report = examine(torch, NIDL_DISABLE_PLUGINS="nidl-bad")
    assert report["problems"] == []
    assert (status(report, "bad"), status(report, "good")) == ("disabled", "ok")
    assert not (torch.folder / "imported").exists()


def test_two_with_one_name_are_each_tried(torch: Any) -> None:
    for name in ("one", "two"):
        torch.add(f"nidl-{name}", {"twin": f"{name}:T"}, modules={name: CLASS})
    report = examine(torch)
    assert [problem["what"] for problem in report["problems"]] == ["ambiguous"]
    one, two = (d["components"][0] for d in report["distributions"] if d["components"])
    assert one["seconds"] is not None
    assert two["seconds"] is not None


def test_without_torch_what_can_be_imported_is(site: Any) -> None:
    modules = {"needs": CLASS, "plain": "class T: ...", "wrong": "1 / 0"}
    points = {name: f"{name}:T" for name in modules}
    site.add("nidl-acme", points, modules=modules)
    report = examine(site)
    assert report["torch"] == {"error": "ModuleNotFoundError: No module named 'torch'"}
    broken = [problem["text"] for problem in report["problems"] if problem["what"] == "broken"]
    assert broken == [
        "the encoder 'wrong' of nidl-acme 1.0 cannot be used (wrong:T): ZeroDivisionError: division by "
        "zero"
    ]
    assert any("asks for torch" in problem["text"] for problem in report["problems"])


def test_the_command_prints_times_and_its_status_is_1_for_a_problem(torch: Any) -> None:
    bad_and_good(torch, "raise RuntimeError('no key')")
    code = "import sys; from nidl_core.cli import main; sys.exit(main(['doctor', '--load', *sys.argv[1:]]))"
    result = torch.run(code)
    assert result.returncode == 1
    assert "torch 9.9: imported in 0." in result.stdout
    assert "  encoders     bad (broken)\n" in result.stdout
    assert "  encoders     good 0." in result.stdout
    assert result.stdout.endswith(
        "\n1 problem\n- the encoder 'bad' of nidl-bad 1.0 cannot be used (bad:T): RuntimeError: no key\n"
        "  NIDL_DISABLE_PLUGINS=nidl-bad leaves it out. Upgrade, repair or uninstall nidl-bad.\n"
    )


def test_json_stays_json_whatever_plugins_print(torch: Any) -> None:
    hook = "print('hooked')\n" + MARK + "@hookimpl\ndef nidl_as_dataset(data): ..."
    torch.add("nidl-hooked", {"h": "hooked"}, group="nidl.hooks", modules={"hooked": hook})
    bad_and_good(torch, "print('banner'); import os; os.system('echo shell')")
    code = (
        "import sys; from nidl_core.cli import main; sys.exit(main(['doctor', '--load', '--json']))"
    )
    result = torch.run(code)
    report = json.loads(result.stdout)
    assert result.returncode == 1
    assert {problem["about"] for problem in report["problems"]} == {"nidl-bad", "nidl-hooked"}


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_an_impossible_timeout_is_wrong_usage(seconds: str, capsys: Any) -> None:
    from nidl_core.cli import main

    with pytest.raises(SystemExit, match="2"):
        main(["doctor", "--timeout", seconds])
    assert "--timeout" in capsys.readouterr().err
