"""Threads, forks and workers that ask at the same time: nothing waits for ever.

Each in a fresh process, with a limit after which the process says where it hangs.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

REGISTRY = """
import faulthandler
from nidl_core.registry import Registry

toys = Registry("encoders", "toy_interface:Base")
faulthandler.dump_traceback_later(LIMIT, exit=True)
"""
INTERFACE = "class Base: pass"
CLASS = "from toy_interface import Base\nclass T(Base): pass\n"
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture
def toys(site: Any) -> Any:
    """Sets up `toy_registry.toys`, whose process ends after `limit` seconds."""

    def limited(limit: float) -> None:
        site.module("toy_interface", INTERFACE)
        site.module("toy_registry", REGISTRY.replace("LIMIT", str(limit)))

    return limited


def test_sixteen_threads_get_one_class_from_one_import_fifty_times(site: Any, toys: Any) -> None:
    toys(50)
    count = "import toy_counts, time\ntoy_counts.counts.append(__name__)\ntime.sleep(0.005)\n"
    site.module("toy_counts", "counts = []")
    names = [f"fresh{i}" for i in range(50)]
    modules = {f"{name}_module": count + CLASS for name in names}
    site.add("acme", {name: f"{name}_module:T" for name in names}, modules=modules)
    code = """
    import json, sys, threading
    from toy_registry import toys
    import toy_counts
    rounds = []
    for i in range(50):
        barrier, got = threading.Barrier(16), []
        def ask():
            barrier.wait()
            got.append(toys.get(f"fresh{i}"))
        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        module = f"fresh{i}_module"
        rounds.append([len(got), len(set(got)), toy_counts.counts.count(module),
                       got[0] is sys.modules[module].T])
    print(json.dumps([len(rounds), [r for r in rounds if r != [16, 1, 1, True]]]))
    """
    assert site.ask(code) == [50, []]


@pytest.mark.parametrize("first", ["get", "import"])
def test_a_get_and_a_direct_import_at_the_same_time_do_not_deadlock(
    site: Any, toys: Any, first: str
) -> None:
    toys(3)
    slow = "import time, nidl_core\ntime.sleep(0.2)\nnidl_core.available('encoders')\n"
    ask = "from toy_registry import toys\nother = toys.get('other')\n"
    modules = {"acme": slow + CLASS + ask, "other": CLASS}
    site.add("nidl-acme", {"t": "acme:T", "other": "other:T"}, modules=modules)
    code = f"""
    import importlib, json, threading, time
    from toy_registry import toys
    got = {{}}
    asks = dict(get=lambda: toys.get("t"), direct=lambda: importlib.import_module("acme").T)
    def run(name): got[name] = asks[name]()
    order = ["get", "direct"] if {first!r} == "get" else ["direct", "get"]
    threads = [threading.Thread(target=run, args=(name,)) for name in order]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads: thread.join()
    print(json.dumps([got["get"] is got["direct"], got["get"].__module__]))
    """
    assert site.ask(code) == [True, "acme"]


def test_one_thread_registers_and_refreshes_while_others_list_and_get(site: Any, toys: Any) -> None:
    toys(30)
    site.add("acme", {"t": "acme:T"}, modules={"acme": CLASS})
    code = """
    import json, sys, threading
    from toy_interface import Base
    from toy_registry import toys
    sys.setswitchinterval(1e-4)  # more chances to collide, and no wait of 5 ms at each read of a file
    class Mine(Base): pass
    stop, faults = threading.Event(), []
    def ask():
        while not stop.is_set():
            try:
                toys.names(), toys.get("t"), toys.entry("t"), toys.entry_of(Mine)
            except Exception as err:
                faults.append(repr(err))
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads: thread.start()
    for i in range(50):
        with toys.temporary(f"mine{i}", Mine):
            toys.refresh()
    stop.set()
    for thread in threads: thread.join()
    print(json.dumps(faults))
    """
    assert site.ask(code) == []


FORK = """
    import json, os, signal, threading, time, warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # threads and forks: what this test is about
    from toy_registry import toys
    thread = threading.Thread(target=toys.get, args=("slow",))
    thread.start()
    while "slow_module" not in __import__("sys").modules: time.sleep(0.01)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(3)  # faulthandler's watchdog is not forked along
        try:
            answer = [toys.names(), toys.get("quick").__module__]
            toys.get("slow")
        except LookupError as err:
            answer.append(f"{type(err).__name__}: {err}")
        os.write(write, json.dumps(answer).encode())
        os._exit(0)
    _, status = os.waitpid(child, 0)
    thread.join()
    os.close(write)
    print(json.dumps([status, json.loads(os.read(read, 9999) or "null"), toys.get("slow").__module__]))
"""


@forks
def test_a_child_forked_in_the_middle_of_an_import_lists_gets_and_does_not_hang(
    site: Any, toys: Any
) -> None:
    toys(10)
    modules = {"slow_module": "import time\ntime.sleep(0.5)\n" + CLASS, "quick_module": CLASS}
    points = {"slow": "slow_module:T", "quick": "quick_module:T"}
    site.add("acme", points, modules=modules)
    status, answer, here = site.ask(FORK)
    assert status == 0
    assert answer == [
        ["quick", "slow"],
        "quick_module",
        "IncompatibleComponent: the encoder 'slow' of acme 1.0 cannot be used: this process was forked "
        "while another thread imported it, so that its import would never end here. Import it before "
        "forking, or start processes by 'spawn'.",
    ]
    assert here == "slow_module"


@pytest.mark.parametrize(
    "method", ["spawn", pytest.param("forkserver", marks=forks), pytest.param("fork", marks=forks)]
)
def test_workers_find_installed_components_and_say_why_not_those_of_a_session(
    site: Any, toys: Any, method: str
) -> None:
    toys(30)
    site.module(
        "work",
        """
        from toy_interface import Base
        from toy_registry import toys

        class Mine(Base): pass

        def ask(name):
            try:
                return toys.get(name).__name__
            except LookupError as err:
                return str(err)
        """,
    )
    site.add("acme", {"t": "acme:T"}, modules={"acme": CLASS})
    code = f"""
    import json, multiprocessing, work
    work.toys.register("mine", work.Mine)
    with multiprocessing.get_context({method!r}).Pool(1) as pool:
        print(json.dumps(pool.map(work.ask, ["t", "mine"])))
    """
    installed, mine = site.ask(code)
    assert installed == "T"
    if method == "fork":  # a copy of the process has what the process has
        assert mine == "Mine"
    else:
        assert mine == (
            "no encoder named 'mine'. Installed: t. This is a worker process: a name given by register() "
            "exists only in the process that registered it. Hand in the class itself, or install it as "
            "a plugin."
        )


def test_entries_specs_and_points_are_pickled_and_sent_to_a_spawned_process(
    site: Any, toys: Any
) -> None:
    toys(30)
    site.module(
        "work",
        "from toy_registry import toys\ndef same(entry, spec): return toys.entry(spec['name']) == entry",
    )
    site.add("acme", {"t": "acme:T"}, requires=["nidl-core"], modules={"acme": CLASS})
    code = """
    import json, multiprocessing, pickle, work
    from nidl_core.discovery import distributions, entry_points
    entry, spec = work.toys.entry("t"), {"name": "acme:t", "params": {"width": 3}}
    for thing in (entry, spec, *entry_points(), *distributions(), work.toys.get("t")):
        assert pickle.loads(pickle.dumps(thing)) == thing
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(json.dumps(pool.apply(work.same, (entry, spec))))
    """
    assert site.ask(code) is True
