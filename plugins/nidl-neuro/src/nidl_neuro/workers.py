"""A function applied to many things by several processes, with few results in memory at once.

The processes are plain subprocesses that talk over their standard input and output. Unlike those of
multiprocessing they do not import the user's script again (which would need its `if __name__ ==
"__main__"`), inherit no threads or locks, and end by themselves when this process is killed.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from typing import IO, Any

from nidl_core.errors import NidlError

_START = "from nidl_neuro.workers import serve; serve()"
_log = logging.getLogger(__name__)
_FIRST = 4  # things made in this process to see how long one takes
_WORTH = 10.0  # seconds of work for which processes are started: each imports for some


class WorkerDied(NidlError):
    """A process that ended in the middle of its work. Field: `code`, its exit status."""

    def __init__(self, name: str, code: int) -> None:
        killed = " It was killed, as the system does when memory runs out." if code == -9 else ""
        super().__init__(
            f"the process that prepared {name} ended with status {code}.{killed} Say workers=1 to prepare "
            "one scan at a time."
        )
        self.code = code


def cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def mapped(
    function: Callable[[Any], Any], things: Sequence[Any], workers: int | None
) -> Generator[tuple[int, Any], None, None]:
    """(number, result or the exception) of each thing, in the order in which they are ready.

    With `workers` below 2, or a function that a new process could not find, they are made
    one after the other in this process. Otherwise at most 2 * workers results wait to be taken. None
    is: as many as there are cores if the first things say that it is worth their start. Close the
    iterator to end the processes early.
    """
    if workers is None:
        seconds = 0.0
        for number, thing in enumerate(things[:_FIRST]):
            start = time.perf_counter()
            result = _tried(function, thing)
            seconds = time.perf_counter() - start  # of the last: the first ones warm up
            yield number, result
        rest = things[_FIRST:]
        for number, result in mapped(
            function, rest, cores() if seconds * len(rest) > _WORTH else 1
        ):
            yield number + _FIRST, result
        return
    workers = min(workers, len(things))
    if workers < 2 or _stays(function):
        for number, thing in enumerate(things):
            yield number, _tried(function, thing)
        return
    with ExitStack() as stack:
        team = _Team(function)
        stack.callback(team.end)
        threads = stack.enter_context(ThreadPoolExecutor(workers))
        stack.callback(team.end)  # before the threads are waited for
        running: dict[Future[Any], int] = {}
        for number, thing in enumerate(things):
            running[threads.submit(team.apply, thing)] = number
            if len(running) >= 2 * workers:
                yield from _ready(running)
        while running:
            yield from _ready(running)


def _tried(function: Callable[[Any], Any], thing: Any) -> Any:
    try:
        return function(thing)
    except Exception as err:
        return err


def _stays(function: Callable[[Any], Any]) -> bool:
    """Whether a new process could not find the function: it is local, or of the user's script."""
    try:
        return b"__main__" in pickle.dumps(function, pickle.HIGHEST_PROTOCOL)
    except (AttributeError, TypeError, pickle.PicklingError) as err:
        _log.info("one scan is prepared at a time, as the preparation cannot be pickled: %s", err)
        return True


def _ready(running: dict[Future[Any], int]) -> Iterator[tuple[int, Any]]:
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        yield running.pop(future), future.result()


class _Team:
    """Processes, one for each thread that asks."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._first = pickle.dumps((list(sys.path), function), pickle.HIGHEST_PROTOCOL)
        self._own = threading.local()
        self._all: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()
        self._ended = False

    def apply(self, thing: Any) -> Any:
        """The function's result, or the exception that it raised."""
        packed = pickle.dumps(thing, pickle.HIGHEST_PROTOCOL)
        process = self._process()
        try:
            _send(process.stdin, packed)
            answer = _receive(process.stdout)
        except (EOFError, OSError, ValueError) as err:  # ValueError: the pipe is closed, by `end`
            raise WorkerDied(str(getattr(thing, "id", thing)), process.wait()) from err
        return pickle.loads(answer)

    def end(self) -> None:
        """Kill the processes."""
        with self._lock:
            self._ended = True
            for process in self._all:
                process.kill()
        for process in self._all:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):  # what was not sent yet
                    pipe and pipe.close()

    def _process(self) -> subprocess.Popen[bytes]:
        if not hasattr(self._own, "process"):
            with self._lock:
                if self._ended:
                    raise EOFError
                self._own.process = subprocess.Popen(
                    [sys.executable, "-c", _START],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": _search_path()},
                )
                self._all.append(self._own.process)
            _send(self._own.process.stdin, self._first)
        process: subprocess.Popen[bytes] = self._own.process
        return process


def serve() -> None:
    """What a process of the team does: until its input ends, take a thing and give its result."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that waits for us
    source = os.fdopen(os.dup(0), "rb")
    target = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get into the answers
    sys.path[:], function = pickle.loads(_receive(source))
    while True:
        try:
            thing = pickle.loads(_receive(source))
        except EOFError:
            return
        try:
            answer = pickle.dumps(function(thing), pickle.HIGHEST_PROTOCOL)
        except Exception as err:
            answer = _packed(err)
        try:
            _send(target, answer)
        except BrokenPipeError:
            os._exit(1)  # nobody waits for it any more


def _packed(err: Exception) -> bytes:
    try:
        packed = pickle.dumps(err)
        pickle.loads(packed)
        return packed
    except Exception:
        return pickle.dumps(NidlError(f"{type(err).__name__}: {err}"))


def _search_path() -> str:
    return os.pathsep.join(path for path in sys.path if path)


def _send(pipe: IO[bytes] | None, content: bytes) -> None:
    assert pipe is not None
    pipe.write(len(content).to_bytes(8, "little"))
    pipe.write(content)
    pipe.flush()


def _receive(pipe: IO[bytes] | None) -> bytes:
    assert pipe is not None
    head = pipe.read(8)
    content = pipe.read(int.from_bytes(head, "little")) if len(head) == 8 else b""
    if len(head) < 8 or len(content) < int.from_bytes(head, "little"):
        raise EOFError
    return content
