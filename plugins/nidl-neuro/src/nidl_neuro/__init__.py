"""Brain scans in and out of nidl: `scans` finds and prepares them, hooks let estimators take them.

Names are imported when they are used, so that looking for plugins stays fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nidl_neuro.data import Scans, scans
    from nidl_neuro.errors import ScanError
    from nidl_neuro.preparation import Preparation, restore
    from nidl_neuro.reading import find

__all__ = ["Preparation", "ScanError", "Scans", "find", "restore", "scans"]
_HOMES = {
    "Preparation": "preparation",
    "ScanError": "errors",
    "Scans": "data",
    "find": "reading",
    "restore": "preparation",
    "scans": "data",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
