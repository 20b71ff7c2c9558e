"""The few events that many plugins may answer. pluggy has the marks and checks what they mark.

Names are the registries' work; hooks are for events. A plugin names a module (or an instance) under
the entry-point group `nidl.hooks` and implements any of the functions of `Events`, marked with
`hookimpl`. Hook plugins are loaded at the first event, one by one.

nidl calls each implementation by itself, so that one that raises hurts neither its neighbours nor
the fit: it is left out, recorded in `faults` and told by logging. `NIDL_STRICT_PLUGINS=1` raises
instead. The user's own plugins (`register`) are asked before installed ones, these by their id, and
the core last; `tryfirst` and `trylast` count within each of the three.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pluggy

from nidl_core.discovery import (
    CORE,
    Point,
    canonical,
    core_conflict,
    disabled,
    entry_points,
    fork_conflict,
    load,
)
from nidl_core.errors import HookError, NidlError

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from nidl_core.estimator import Estimator

hookspec = pluggy.HookspecMarker("nidl")
hookimpl = pluggy.HookimplMarker("nidl")
faults: dict[str, str] = {}  # plugin -> what went wrong last, while loading or asking it

_log = logging.getLogger(__name__)


class Events:
    """The specifications. An implementation may take any subset of the arguments."""

    @hookspec(firstresult=True)
    def nidl_as_dataset(self, data: Any, spec: Any) -> Any:
        """Turn an input that the core does not know into an array, tensor, Dataset or DataLoader.

        Return None for what is not yours: the next plugin is asked. Raise a `DataError` for what is
        yours and cannot be used: nobody else is asked. `spec` is what the data that the model was
        fitted on said of themselves (`nidl_core.data.ArrayDataset`), so that further data are
        prepared like them; at a fit, what a spec file says of the data, or None.
        """

    @hookspec(firstresult=True)
    def nidl_writer(self, out: Path, verb: str) -> Any:
        """Who writes the answers of `nidl transform`, `reconstruct` or `sample` to `out`; None for others.

        An object with `check(overwrite)`, which raises a `NidlError` unless `out` can be written, before
        any work; and `write(model, data, rows, pieces)`, which writes arrays one below the other and
        returns what there is now, for a person. `data` is None for `sample`.
        """

    @hookspec
    def nidl_fit_callbacks(self, estimator: Estimator) -> Any:
        """Lightning callbacks to add to a fit of this estimator: a list."""

    @hookspec
    def nidl_fit_loggers(self, estimator: Estimator) -> Any:
        """Lightning loggers to add to a fit of this estimator: a list."""

    @hookspec
    def nidl_cli_commands(self, subparsers: argparse._SubParsersAction[Any]) -> None:
        """Add commands to `nidl`: set `run`, a function of the parsed arguments, as a default."""

    @hookspec
    def nidl_cli_demos(self, subparsers: argparse._SubParsersAction[Any]) -> None:
        """Add demonstrations to `nidl demo`, as `nidl_cli_commands` adds commands to `nidl`."""

    @hookspec
    def nidl_model_facts(self, estimator: Estimator) -> Any:
        """Facts to keep in a saved model, for a person to read: a dict of plain data."""


@dataclass(frozen=True, eq=False)
class Plugin:
    """A module or object with implementations, by hook."""

    id: str  # "distribution:name", or "session:name" for the user's own
    thing: object
    implementations: Mapping[str, Sequence[pluggy.HookImpl]]


def first(hook: str, /, **arguments: Any) -> Any:
    """The first answer that is not None; None if nobody has one.

    A `NidlError` of an implementation goes through: it says "this is mine, and bad". After any other
    exception the next plugin is asked; if nobody answers, `HookError` names those that failed.
    """
    failed: dict[str, str] = {}
    last: BaseException | None = None
    for plugin, ask in _asked(hook, arguments):
        try:
            answer = ask()
        except (KeyboardInterrupt, NidlError):
            raise
        except BaseException as err:
            record(plugin, hook, err)
            failed[plugin], last = _reason(err), err
        else:
            if answer is not None:
                return answer
    if failed:
        raise HookError(f"plugins failed in {hook}", reasons=failed) from last
    return None


def collect(hook: str, /, **arguments: Any) -> list[tuple[str, Any]]:
    """All answers that are not None, each with the id of its plugin. An exception is no answer."""
    answers = []
    for plugin, ask in _asked(hook, arguments):
        try:
            answer = ask()
        except KeyboardInterrupt:
            raise
        except BaseException as err:
            record(plugin, hook, err)
        else:
            if answer is not None:
                answers.append((plugin, answer))
    return answers


def record(plugin: str, hook: str, err: BaseException) -> None:
    """Keep and tell that a plugin failed in a hook. Raises `err` where `NIDL_STRICT_PLUGINS=1`."""
    if _strict():
        raise err
    faults[plugin] = f"{hook}: {_reason(err)}"
    _log.warning("hook plugin %s failed in %s and is passed over: %s", plugin, hook, _reason(err))


def register(thing: object, name: str | None = None) -> str:
    """Add a plugin of the user's own, for this process; its id. It is asked before all others.

    Raises `HookError` for a misspelt hook, an argument that there is not, or a name that is taken:
    nothing is registered then.
    """
    own = getattr(thing, "__name__", None) or type(thing).__name__
    plugin_id = f"session:{name or own}"
    taken = {plugin.id: plugin.thing for plugin in list(_session)}
    if any(thing is other for other in taken.values()):
        raise _refusal(plugin_id, "it is registered already. Unregister it first")
    if name is not None and plugin_id in taken:
        raise _refusal(plugin_id, "another one is registered by that name. Choose another name")
    number = 1
    while plugin_id in taken:
        number += 1
        plugin_id = f"session:{own}-{number}"
    _session.insert(0, _examined(thing, plugin_id))
    return plugin_id


def unregister(thing: object) -> None:
    """Take back a `register`. Raises `HookError` if there was none."""
    for plugin in list(_session):
        if plugin.thing is thing:
            return _session.remove(plugin)
    raise HookError("no such hook plugin is registered", reasons={"session": repr(thing)})


@contextlib.contextmanager
def temporary(thing: object, name: str | None = None) -> Iterator[str]:
    """`register` for the length of a `with` block."""
    plugin_id = register(thing, name)
    try:
        yield plugin_id
    finally:
        with contextlib.suppress(HookError):  # unregistered in the block
            unregister(thing)


def plugins() -> list[Plugin]:
    """All plugins in the order they are asked, with the installed ones loaded."""
    found: list[Plugin] = []
    for plugin in sorted([*_session, *_loaded()], key=_rank):
        if all(plugin.thing is not other.thing for other in found):  # a module under two names
            found.append(plugin)
    return found


def load_plugin(point: Point) -> Plugin:
    """Import and check the plugin behind an entry point of `nidl.hooks`. Raises whatever is wrong."""
    reason = core_conflict(point.distribution, point.requires) or fork_conflict(point.target)
    if reason:
        raise _refusal(point.id, reason)
    owner = f"{point.distribution} {point.version}"
    return _examined(load(point.target, owner), point.id)


_session: list[Plugin] = []  # the latest first
_installed: list[Plugin] | None = None  # replaced in one step, once all are loaded
_loading = threading.local()


def _loaded() -> list[Plugin]:
    global _installed
    if _installed is not None:
        return _installed
    if (begun := getattr(_loading, "plugins", None)) is not None:
        return list(begun)  # a plugin that causes an event while it is imported: those before it
    _loading.plugins = found = []
    try:
        for point in sorted(entry_points(), key=lambda point: point.id):
            if point.group != "nidl.hooks" or disabled(point.distribution, point.name):
                continue
            try:
                found.append(load_plugin(point))
            except KeyboardInterrupt:
                raise
            except BaseException as err:  # whatever a stranger's module may do on import
                if _strict():
                    raise
                faults[point.id] = _reason(err)
                _log.warning("hook plugin %s is left out: %s", point.id, faults[point.id])
    finally:
        del _loading.plugins
    _installed = found
    return found


def _asked(hook: str, arguments: Mapping[str, Any]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The implementations of a hook in the order they are asked, ready to be called."""
    found = [(p, how) for p in plugins() for how in p.implementations.get(hook, ())]
    found.sort(key=lambda pair: (_rank(pair[0]), pair[1].trylast - pair[1].tryfirst))
    for plugin, how in found:
        yield plugin.id, partial(how.function, *(arguments[name] for name in how.argnames))


def _rank(plugin: Plugin) -> int:
    """0 for the user's own, 1 for installed ones, 2 for the core."""
    if plugin in _session:
        return 0
    return 2 if canonical(plugin.id.partition(":")[0]) == CORE else 1


def _examined(thing: object, plugin_id: str) -> Plugin:
    """The plugin, checked as a whole, in a manager of its own: a faulty one leaves nothing behind."""
    if isinstance(thing, type):
        raise _refusal(plugin_id, "it is a class. Name an instance of it, or a module")
    manager = pluggy.PluginManager("nidl")
    manager.add_hookspecs(Events)
    try:
        manager.register(thing, name=plugin_id)
    except pluggy.PluginValidationError as err:
        raise _refusal(plugin_id, " ".join(str(err).split())) from None
    hooks = [name for name in vars(Events) if name.startswith("nidl_")]
    found: dict[str, list[pluggy.HookImpl]] = {}
    for caller in manager.get_hookcallers(thing) or []:
        for how in caller.get_hookimpls():
            if not caller.has_spec() and not how.optionalhook:
                near = difflib.get_close_matches(caller.name, hooks, n=1)
                hint = f"Did you mean {near[0]}?" if near else f"Hooks: {', '.join(hooks)}."
                raise _refusal(plugin_id, f"it implements {caller.name}, which is no hook. {hint}")
            if how.wrapper or how.hookwrapper:
                raise _refusal(
                    plugin_id,
                    f"its {caller.name} is a hook wrapper. nidl calls each implementation by itself, so "
                    "there is nothing to wrap: write it as a plain implementation",
                )
            found.setdefault(caller.name, []).append(how)
    for name in hooks:
        if name not in found and inspect.getattr_static(thing, name, None) is not None:
            raise _refusal(plugin_id, f"its {name} lacks the mark @nidl_core.hooks.hookimpl")
    if not found:
        raise _refusal(plugin_id, f"it implements no hook. Hooks: {', '.join(hooks)}")
    return Plugin(plugin_id, thing, found)


def _refusal(plugin_id: str, reason: str) -> HookError:
    return HookError("this hook plugin cannot be used", reasons={plugin_id: reason})


def _reason(err: BaseException) -> str:
    return err.reason if isinstance(err, HookError) else f"{type(err).__name__}: {err}"


def _strict() -> bool:
    return os.environ.get("NIDL_STRICT_PLUGINS") == "1"
