"""Other processes for the checks: a fresh interpreter, a spawned worker, and a pair of gloo ranks.

Worker and pair start at first use and serve all checks of a session, for an interpreter that
imports torch takes seconds to start. They see `sys.path` and the environment of that moment.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NoReturn

TIMEOUT = 120  # seconds, for one task; the first of them waits for imports as well
GRACE = 5  # seconds, for the other ranks when one has failed


class ProcessError(AssertionError):
    """A task failed in another process; the text has its traceback."""


def fresh(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module as a script, in a fresh interpreter that sees this one's `sys.path`."""
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    try:
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
            # Safe: the working directory counts only as far as it does here.
            env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
        )
    except subprocess.TimeoutExpired:
        raise ProcessError(f"a fresh process did not end within {TIMEOUT} s") from None


def spawned(task: Callable[..., Any], *arguments: Any) -> Any:
    """`task(*arguments)` in a spawned process: task and arguments travel by pickle."""
    return _ask(1, task, arguments)[0]


def pair(task: Callable[..., Any], *arguments: Any) -> list[Any]:
    """`task(rank, *arguments)` in two processes that form a gloo group; both answers."""
    return _ask(2, task, arguments)


@atexit.register
def stop() -> None:
    """End worker and pair. The next task starts new ones, with the `sys.path` of then."""
    while _teams:
        _teams.popitem()[1].close()


_teams: dict[int, _Team] = {}


def _ask(size: int, task: Callable[..., Any], arguments: tuple[Any, ...]) -> list[Any]:
    try:
        # Plain pickle: the one of multiprocessing moves tensors to shared memory, and that is scarce.
        message = pickle.dumps((task, arguments))
    except Exception as err:
        raise ProcessError(f"cannot be sent to a spawned process: {err}") from err
    if size not in _teams:
        _teams[size] = _Team(size)
    try:
        return _teams[size].ask(message)
    except BaseException:
        # Processes that answered go on. One that did not may wait for another for ever.
        if _teams[size].busy or not _teams[size].regroup():
            _teams.pop(size).close()
        raise


class _Team:
    """`size` spawned processes that run one task after the other; more than one form a gloo group."""

    def __init__(self, size: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.busy = False  # an answer is still to come
        self._folder = tempfile.TemporaryDirectory(prefix="nidl-")
        self._groups = 1
        self._ends: list[Any] = []
        self._processes = []
        for rank in range(size):
            ours, theirs = context.Pipe()
            given = (theirs, rank, size, self._store())
            process = context.Process(target=_serve, args=given, daemon=True)
            with _importable_main():
                process.start()
            theirs.close()
            self._ends.append(ours)
            self._processes.append(process)

    def ask(self, message: bytes) -> list[Any]:
        """The answers, in the order of ranks. After a failure the others are not waited for long."""
        self.busy = True
        for rank, end in enumerate(self._ends):
            try:
                end.send_bytes(message)
            except OSError:
                self._died(rank)
        answers: dict[int, Any] = {}
        failure, limit = None, time.monotonic() + TIMEOUT
        while len(answers) < len(self._ends):
            waiting = {end: rank for rank, end in enumerate(self._ends) if rank not in answers}
            ready = wait(list(waiting), timeout=max(0.0, limit - time.monotonic()))
            if not ready:
                break
            for rank in (waiting[end] for end in ready):
                good, answers[rank] = self._answer(rank)
                if not good and failure is None:
                    failure, limit = answers[rank], time.monotonic() + GRACE
        self.busy = len(answers) < len(self._ends)
        if failure is not None:
            raise ProcessError(f"in another process:\n{failure}")
        if self.busy:
            raise ProcessError(f"no answer from another process within {TIMEOUT} s")
        return [answers[rank] for rank in sorted(answers)]

    def regroup(self) -> bool:
        """Form a new group, in which no message of a failed task is on its way; whether it worked."""
        if len(self._ends) == 1:
            return True
        self._groups += 1
        try:
            self.ask(pickle.dumps((_join, (len(self._ends), self._store()))))
        except ProcessError:
            return False
        return True

    def _store(self) -> str:
        return str(Path(self._folder.name, f"store-{self._groups}"))

    def _answer(self, rank: int) -> tuple[bool, Any]:
        try:
            answer: tuple[bool, Any] = pickle.loads(self._ends[rank].recv_bytes())
        except (EOFError, OSError):
            self._died(rank)
        return answer

    def _died(self, rank: int) -> NoReturn:
        self._processes[rank].join(5)
        status = self._processes[rank].exitcode
        raise ProcessError(f"another process died with status {status}, without a word") from None

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(5)
            process.kill()  # no process takes this for a suggestion
            process.join()
        for end in self._ends:
            end.close()
        self._folder.cleanup()


@contextlib.contextmanager
def _importable_main() -> Iterator[None]:
    """Keep children from running the main script again: tasks are found by their own modules."""
    main = sys.modules["__main__"]
    kept = {name: main.__dict__.get(name) for name in ("__file__", "__spec__")}
    main.__dict__.pop("__file__", None)
    main.__spec__ = None
    try:
        yield
    finally:
        main.__dict__.update({k: v for k, v in kept.items() if k == "__spec__" or v is not None})


def _serve(end: Any, rank: int, size: int, store: str) -> None:
    """What a worker does until its pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    import torch

    from nidl_core.testing.settings import kept

    torch.set_num_threads(1)
    if size > 1:
        _join(rank, size, store)
    while True:
        try:
            message = end.recv_bytes()
        except EOFError:
            return
        try:
            with kept():
                task, arguments = pickle.loads(message)
                answer = task(rank, *arguments) if size > 1 else task(*arguments)
                reply = pickle.dumps((True, answer))
        except BaseException:
            reply = pickle.dumps((False, traceback.format_exc(limit=-6)))
        end.send_bytes(reply)


def _join(rank: int, size: int, store: str) -> None:
    """Form a gloo group with the other ranks, in place of one there may be."""
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=TIMEOUT),
    )
