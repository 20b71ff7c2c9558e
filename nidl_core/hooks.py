"""The few events that many plugins may answer, through pluggy.

Names are the registries' work; hooks are for events. A plugin names a module (or object) under the
entry-point group `nidl.hooks` and implements any of the functions below, marked with `hookimpl`.
Hook plugins are loaded at the first event, one by one: a broken one is recorded in `faults`, and
hides no other. `NIDL_DISABLE_PLUGINS` (distributions, or `distribution:name`, separated by commas)
leaves some out before they are imported; `NIDL_STRICT_PLUGINS=1` raises instead of recording.
"""

from __future__ import annotations

import logging
import os
from functools import cache
from typing import TYPE_CHECKING, Any

import pluggy

from nidl_core.discovery import core_conflict, entry_points, load
from nidl_core.errors import NidlError

if TYPE_CHECKING:
    import argparse

    from nidl_core.estimator import Estimator

hookspec = pluggy.HookspecMarker("nidl")
hookimpl = pluggy.HookimplMarker("nidl")
faults: dict[str, str] = {}  # "distribution:name" -> what went wrong while loading it

_log = logging.getLogger(__name__)


class Events:
    """The specifications. An implementation may take any subset of the arguments."""

    @hookspec(firstresult=True)
    def nidl_as_dataset(self, data: Any) -> Any:
        """Turn an input that the core does not know into an array, tensor, Dataset or DataLoader.

        Return None for what is not yours: the next plugin is asked.
        """

    @hookspec
    def nidl_fit_callbacks(self, estimator: Estimator) -> Any:
        """Lightning callbacks to add to a fit of this estimator: a list."""

    @hookspec
    def nidl_cli_commands(self, subparsers: argparse._SubParsersAction[Any]) -> None:
        """Add commands to `nidl`: set `run`, a function of the parsed arguments, as a default."""

    @hookspec
    def nidl_model_facts(self, estimator: Estimator) -> Any:
        """Facts to keep in a saved model, for a person to read: a dict of plain data."""


@cache
def manager() -> pluggy.PluginManager:
    """The plugin manager, with all installed hook plugins loaded."""
    plugins = pluggy.PluginManager("nidl")
    plugins.add_hookspecs(Events)
    disabled = {name.strip() for name in os.environ.get("NIDL_DISABLE_PLUGINS", "").split(",")}
    for point in entry_points():
        plugin_id = f"{point.distribution}:{point.name}"
        if point.group != "nidl.hooks" or {point.distribution, plugin_id} & disabled:
            continue
        try:
            if reason := core_conflict(point.distribution):
                raise NidlError(reason)
            plugins.register(load(point.target), name=plugin_id)
            plugins.check_pending()  # a misspelt hook is a fault, not a silence
        except (Exception, SystemExit) as err:  # whatever a stranger's module may do on import
            if os.environ.get("NIDL_STRICT_PLUGINS") == "1":
                raise
            if plugins.has_plugin(plugin_id):
                plugins.unregister(name=plugin_id)
            faults[plugin_id] = f"{type(err).__name__}: {err}"
            _log.warning("hook plugin %s is left out: %s", plugin_id, faults[plugin_id])
    return plugins
