"""Plugins that exit, print, take their time or lock others out when imported: what their neighbours feel."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

import pytest

CLI = "import sys; from nidl_core.cli import main; sys.exit(main({arguments}))"
INTERFACE = """
class Encoder:  # stands in for the interface, which needs torch
    pass
"""
CLASS = "from nidl_core.interfaces import Encoder\nclass T(Encoder):\n    pass\n"
# What a plugin may do in the first line of its module.
EXITS = "import sys\nsys.exit('no licence')\n"
PRINTS = """
import os, subprocess, sys
print("banner")
sys.stdout.write("progress")
os.system("echo shell")
os.write(1, b"raw")
"""
PATCHES = "import torch\ntorch.set_num_threads(1)\ntorch.relu = lambda x: 'patched'\n"
SLOW = "import time\ntime.sleep({seconds})\n"
LOCKS = """
import importlib, threading, time
started = threading.Event()
def hold():
    importlib.import_module("locked")
thread = threading.Thread(target=hold, daemon=True)
thread.start()
time.sleep(0.2)
"""
# The import waits for a thread that waits for the import.
DEADLOCKS = """
import importlib, threading
thread = threading.Thread(target=lambda: importlib.import_module("bad"), daemon=True)
thread.start()
thread.join()
"""


@pytest.fixture
def plugins(site: Any) -> Any:
    """Installs nidl-bad, of this source, beside a plugin that works; and an interface without torch."""

    def install(bad: str) -> None:
        folder = site.folder / "stand_in"
        folder.mkdir()
        (folder / "interfaces.py").write_text(INTERFACE)
        start = "import sys, nidl_core, importlib.util as u\n"
        start += f"spec = u.spec_from_file_location('nidl_core.interfaces', {str(folder / 'interfaces.py')!r})\n"
        start += "sys.modules[spec.name] = module = u.module_from_spec(spec)\n"
        start += "spec.loader.exec_module(module)\n"
        site.module("stand_in", start)
        site.add("nidl-bad", {"bad": "bad:T"}, modules={"bad": bad + CLASS})
        site.add("nidl-good", {"good": "good:T"}, modules={"good": CLASS})

    return install


def cli(
    site: Any, *arguments: str, stand_in: bool = True, **env: str
) -> subprocess.CompletedProcess[str]:
    code = CLI.format(arguments=list(arguments))
    found: subprocess.CompletedProcess[str] = site.run(
        f"import stand_in\n{code}" if stand_in else code, **env
    )
    return found


GET_GOOD = """
import stand_in, logging, json, sys
from nidl_core.registry import encoders
answers = []
for name in ("bad", "good"):
    try:
        answers.append(encoders.get(name).__module__)
    except BaseException as err:
        answers.append(f"{type(err).__name__}: {err}")
print(json.dumps(answers))
"""
BROKEN = "the encoder 'bad' of nidl-bad 1.0 cannot be loaded from bad:T: "


@pytest.mark.parametrize(
    "source", [EXITS, PRINTS, PATCHES, SLOW.format(seconds=99), LOCKS, DEADLOCKS]
)
def test_the_list_does_not_import_it(site: Any, plugins: Any, source: str) -> None:
    plugins(source)
    listed = cli(site, "list", "--json", stand_in=False)
    assert [entry["name"] for entry in json.loads(listed.stdout)] == ["bad", "good"]
    assert listed.stderr == ""


def test_one_that_exits_is_broken_and_its_neighbour_is_not(site: Any, plugins: Any) -> None:
    plugins(EXITS)
    bad, good = site.ask(GET_GOOD)
    assert bad == (
        f"BrokenComponent: {BROKEN}SystemExit: no licence. The fault lies in that package: upgrade, "
        "repair or uninstall it."
    )
    assert good == "good"
    shown = cli(site, "show", "bad")
    assert shown.returncode == 1
    assert "SystemExit: no licence" in shown.stdout
    assert cli(site, "show", "bad", "--json").returncode == 1
    assert cli(site, "show", "good").returncode == 0


@pytest.mark.parametrize("name", ["bad", "good"])
def test_one_that_prints_does_not_spoil_what_programs_read(
    site: Any, plugins: Any, name: str
) -> None:
    plugins(PRINTS)
    shown = cli(site, "show", name, "--json")
    assert [component["id"] for component in json.loads(shown.stdout)] == [f"nidl-{name}:{name}"]
    for text in ("banner", "progress", "shell", "raw"):
        assert (text in shown.stderr) is (name == "bad")


def test_in_a_program_of_ones_own_it_prints_where_print_prints(site: Any, plugins: Any) -> None:
    plugins(PRINTS)
    told = site.run(GET_GOOD).stdout
    assert told.index("banner") < told.index('["bad", "good"]')


def test_one_that_prints_in_its_hooks_does_not_spoil_a_command(site: Any) -> None:
    hook = "from nidl_core.hooks import hookimpl\n@hookimpl\ndef nidl_cli_commands(subparsers): print('asked')\n"
    site.add(
        "nidl-bad", {"bad": "bad"}, group="nidl.hooks", modules={"bad": "print('banner')\n" + hook}
    )
    code = """
    import json, sys
    from nidl_core import discovery, hooks
    with discovery.prints_aside():
        hooks.collect("nidl_cli_commands", subparsers=None)
    print(json.dumps("result"))
    """
    result = site.run(code)
    assert (result.stdout, result.stderr) == ('asked\n"result"\n', "banner\n")


def test_one_that_patches_torch_is_loaded_and_its_neighbour_too(site: Any, plugins: Any) -> None:
    """What it did is found by `nidl doctor --load`."""
    site.module("torch", "def set_num_threads(n): ...\ndef relu(x): ...")
    plugins(PATCHES)
    assert site.ask(GET_GOOD) == ["bad", "good"]


WAY_OUT = ". To do without it: NIDL_DISABLE_PLUGINS=nidl-bad"


def test_one_that_takes_long_is_told_while_it_lasts_and_after(site: Any, plugins: Any) -> None:
    plugins(SLOW.format(seconds=1.2))
    code = f"from nidl_core import discovery\ndiscovery.SLOW = 0.4\n{GET_GOOD}"
    result = site.run(code)
    assert json.loads(result.stdout) == ["bad", "good"]
    during, after = result.stderr.splitlines()
    assert during == f"the import of nidl-bad 1.0 (bad:T) has not ended after 0.4 s{WAY_OUT}"
    assert after.startswith("the import of nidl-bad 1.0 (bad:T) took 1.")


def test_one_of_ten_seconds_is_told_after_five(site: Any, plugins: Any) -> None:
    """Slow: ten real seconds, once, with the real threshold."""
    plugins(SLOW.format(seconds=10))
    result = site.run(GET_GOOD)
    assert json.loads(result.stdout) == ["bad", "good"]
    during, after = result.stderr.splitlines()
    assert during == f"the import of nidl-bad 1.0 (bad:T) has not ended after 5 s{WAY_OUT}"
    assert after.startswith("the import of nidl-bad 1.0 (bad:T) took 10.")


def test_what_torch_takes_is_not_told_as_the_plugins_time(site: Any) -> None:
    site.module("interface", "import time\ntime.sleep(0.6)\nclass Base: pass\n")
    source = "import interface\nclass T(interface.Base): pass\n"
    site.add("nidl-quick", {"quick": "quick:T"}, modules={"quick": source})
    code = """
    from nidl_core import discovery
    from nidl_core.registry import Registry
    discovery.SLOW = 0.4
    print(Registry("encoders", "interface:Base").get("quick").__name__)
    """
    result = site.run(code)
    assert (result.stdout, result.stderr) == ("T\n", "")


def test_one_whose_thread_holds_a_lock_of_import_keeps_nobody_else_waiting(
    site: Any, plugins: Any
) -> None:
    began = time.monotonic()
    site.module("locked", "import time\ntime.sleep(30)\n")
    plugins(LOCKS)
    result = site.run(
        f"{GET_GOOD}\nimport os\nsys.stdout.flush()\nos._exit(0)"
    )  # 30 s before they end
    assert json.loads(result.stdout) == ["bad", "good"]
    assert result.stderr == ""
    assert time.monotonic() - began < 20


def test_one_that_never_ends_is_told_by_name_and_keeps_nobody_else_waiting(
    site: Any, plugins: Any
) -> None:
    plugins(DEADLOCKS)
    code = """
    import stand_in, json, os, sys, threading, time
    from nidl_core import discovery
    from nidl_core.registry import encoders
    discovery.SLOW = 0.3
    threading.Thread(target=encoders.get, args=("bad",), daemon=True).start()
    time.sleep(1)
    print(json.dumps([encoders.get("good").__module__, encoders.names()]), flush=True)
    os._exit(0)
    """
    result = site.run(code)
    assert json.loads(result.stdout) == ["good", ["bad", "good"]]
    told = f"the import of nidl-bad 1.0 (bad:T) has not ended after 0.3 s{WAY_OUT}\n"
    assert result.stderr == told
