"""Import what a distribution names in a process of its own, and see what that does to others.

`probe` is for the caller; `main` runs in the process, and writes a line at the beginning and the end
of each import, so that one that kills Python or never ends leaves word of itself.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nidl_core.discovery import Point, load
from nidl_core.errors import NidlError
from nidl_core.hooks import load_plugin
from nidl_core.registry import Registry, registry

HEAVY = ("lightning", "numpy", "sklearn", "torch")  # what a hook plugin should not import
_CHILD = (
    "import json, sys; order = json.loads(sys.argv[1]); sys.path[:] = order['path']; "
    "from nidl_core.probe import main; main(order, sys.argv[2])"
)


def probe(points: Sequence[Point], *, torch: bool, timeout: float) -> dict[Point | None, Any]:
    """What became of the import of each point; under None, that of torch.

    `torch` imports it first, so that its time and its doings are not the plugin's. `timeout` is for
    one import, in seconds. Each point is answered by a dict with `error`, a text or None, `seconds`
    and whatever `_watched` saw.
    """
    answers: dict[Point | None, Any] = {}
    left = list(points)
    while left:
        events, ended = _child(left, torch=torch, timeout=timeout)
        answers[None] = next((e["torch"] for e in events if "torch" in e), answers.get(None))
        for event in events:
            if "end" in event:
                answers[left[event.pop("end")]] = event
        begun = [left[e["begin"]] for e in events if "begin" in e]
        # One that took the process along answers for all of its module; if none had begun, for all.
        guilty = [p for p in begun if p not in answers]
        for point in left:
            if point not in answers and (not begun or _module(point) in map(_module, guilty)):
                answers[point] = {"error": ended, "seconds": None}
        left = [p for p in left if p not in answers]
    return answers


def _module(point: Point) -> str:
    return point.target.partition(":")[0]


def _child(
    points: Sequence[Point], *, torch: bool, timeout: float
) -> tuple[list[dict[str, Any]], str]:
    """The lines that a fresh process wrote, and how it ended."""
    order = {"path": sys.path, "torch": torch, "points": [vars(point) for point in points]}
    # Without site-packages if this process is, or the path would hold more than this one's.
    options = ["-S"] if sys.flags.no_site else []
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder, "lines")
        lines.touch()
        # Files, not pipes, which would be held open by what a plugin starts.
        with open(Path(folder, "1"), "wb") as out, open(Path(folder, "2"), "wb") as err:
            process = subprocess.Popen(
                [sys.executable, *options, "-c", _CHILD, json.dumps(order), folder],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=os.name == "posix",
            )
            ended = _wait(process, lines, timeout)
        said = Path(folder, "2").read_text(errors="replace").split("\n")
        if process.returncode > 0 and said[-2:-1]:
            ended += f": {said[-2][:200]}"
        whole, _, _ = lines.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()], ended


def _wait(process: subprocess.Popen[bytes], lines: Path, timeout: float) -> str:
    """Wait for its end, or kill it once it has written nothing for `timeout` seconds."""
    size, since = 0, time.monotonic()
    try:
        while process.poll() is None:
            if lines.stat().st_size != size:
                size, since = lines.stat().st_size, time.monotonic()
            if time.monotonic() - since > timeout:
                return f"the import has not ended after {timeout:g} s"
            time.sleep(0.02)
    finally:
        with contextlib.suppress(OSError):  # and what it has started
            os.killpg(process.pid, signal.SIGKILL) if os.name == "posix" else process.kill()
        process.wait()
    if process.returncode < 0:
        return f"the import kills Python ({signal.Signals(-process.returncode).name})"
    return f"the import ends Python, with exit status {process.returncode}"


# In the process ---------------------------------------------------------------------------------


def main(order: Mapping[str, Any], folder: str) -> None:
    """Import the points of the order one by one, and write a JSON line at each event.

    The folder has the files `lines`, `1` (stdout) and `2` (stderr).
    """
    logging.getLogger("nidl_core").setLevel(logging.ERROR)  # that it takes long is seen anyway
    with open(Path(folder, "lines"), "a", buffering=1, encoding="utf-8") as lines:

        def tell(**event: Any) -> None:
            lines.write(json.dumps(event) + "\n")

        if order["torch"]:
            tell(torch=_torch())
        points = [Point(**facts) for facts in order["points"]]
        interfaces = {p.group: _interface(p) for p in points if p.group != "nidl.hooks"}
        for number, point in enumerate(points):
            tell(begin=number)
            with _watched(folder) as seen:
                began = time.perf_counter()
                error = _error(point, interfaces.get(point.group))
                seen["seconds"] = round(time.perf_counter() - began, 3)
            tell(end=number, error=error, **seen)
    os._exit(0)  # a thread that a plugin left running may never end


def _torch() -> dict[str, Any]:
    began = time.perf_counter()
    try:
        torch = importlib.import_module("torch")
    except Exception as err:
        return {"error": f"{type(err).__name__}: {err}"}
    seconds = round(time.perf_counter() - began, 3)
    return {"version": str(getattr(torch, "__version__", "?")), "seconds": seconds}


def _interface(point: Point) -> Exception | None:
    """Import the interface of the point's kind; why that cannot be."""
    try:
        load(_registry(point).interface)
    except Exception as err:
        return err
    return None


def _registry(point: Point) -> Registry[Any]:
    return registry(point.group.removeprefix("nidl."))


def _error(point: Point, unchecked: Exception | None) -> str | None:
    """What is wrong with a point. Without its interface only its import can be tried."""
    try:
        if point.group == "nidl.hooks":
            load_plugin(point)
        elif unchecked is None:
            _registry(point).get(point.id)
        else:
            load(point.target)
    except ModuleNotFoundError as err:
        if unchecked is not None and err.name == getattr(unchecked, "name", None):
            return None  # said once, of the core, and not of every plugin
        return f"{type(err).__name__}: {err}"
    except NidlError as err:
        return str(getattr(err, "reason", err))
    except BaseException as err:
        return f"{type(err).__name__}: {err}"
    return None


@contextlib.contextmanager
def _watched(folder: str) -> Iterator[dict[str, Any]]:
    """What happens in a `with` block: `printed`, `said` (stderr), `warned`, `changed`, `threads`, `heavy`."""
    seen: dict[str, Any] = {}
    before, running = _state(), set(threading.enumerate())
    modules, sizes = set(sys.modules), [_size(1), _size(2)]
    with warnings.catch_warnings(record=True) as warned:
        yield seen
    seen["printed"], seen["said"] = (_written(folder, i, sizes[i - 1]) for i in (1, 2))
    seen["warned"] = sorted({f"{w.category.__name__}: {w.message}" for w in warned})
    after = _state()
    seen["changed"] = [k for k, v in before.items() if k not in after or not _same(v, after[k])]
    seen["threads"] = sorted(t.name for t in threading.enumerate() if t not in running)
    seen["heavy"] = [name for name in HEAVY if name in sys.modules and name not in modules]


def _size(stream: int) -> int:
    (sys.stdout, sys.stderr)[stream - 1].flush()
    return os.fstat(stream).st_size


def _written(folder: str, stream: int, since: int) -> str:
    """What came into stdout or stderr since, its beginning."""
    _size(stream)
    with open(Path(folder, str(stream)), "rb") as file:
        file.seek(since)
        return file.read(300).decode(errors="replace").strip()


_MISSING = object()


def _state() -> dict[str, Any]:
    """What an import could change for its neighbours, by what it is called."""
    state: dict[str, Any] = {"Python's random state": random.getstate()}
    if numpy := sys.modules.get("numpy"):
        state["numpy's random state"] = [str(part) for part in numpy.random.get_state()]
    torch = sys.modules.get("torch")
    if torch is None:
        return state
    for name, what in {
        "get_num_threads": "the number of torch threads",
        "get_num_interop_threads": "the number of torch threads between operations",
        "get_default_dtype": "torch's default dtype",
        "get_default_device": "torch's default device",
        "is_grad_enabled": "whether gradients are on",
        "get_rng_state": "torch's random state",
    }.items():
        ask: Callable[[], Any] = getattr(torch, name, lambda: None)
        value = ask()
        state[what] = value.tolist() if hasattr(value, "tolist") else value
    for owner in ("torch", "torch.nn.functional", "torch.Tensor", "torch.nn.Module"):
        thing: Any = torch
        for part in owner.split(".")[1:]:
            thing = getattr(thing, part, _MISSING)
        for name, value in list(vars(thing).items()) if thing is not _MISSING else []:
            if callable(value):
                state[f"{owner}.{name}"] = _Itself(value)
    return state


class _Itself:
    """Equal to itself only, and alive as long as it is compared."""

    def __init__(self, thing: object) -> None:
        self.thing = thing


def _same(a: Any, b: Any) -> bool:
    if not isinstance(a, _Itself):
        return bool(a == b)
    return a.thing is b.thing or _wrapped_by_torch(a.thing, b.thing)


def _wrapped_by_torch(old: Any, new: Any) -> bool:
    """torch's compiler, once imported, wraps some of torch's own functions."""
    home = os.path.join(os.path.dirname(sys.modules["torch"].__file__ or ""), "")
    file: str = getattr(getattr(new, "__code__", None), "co_filename", "")
    return getattr(new, "__wrapped__", None) is old and file.startswith(home)
