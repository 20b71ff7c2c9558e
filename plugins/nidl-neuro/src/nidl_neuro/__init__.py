"""Brain scans in and out of nidl: `scans` finds and prepares them, hooks let estimators take them.

Names are imported when they are used, so that looking for plugins stays fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nidl_neuro.bound import bits_per_voxel
    from nidl_neuro.data import Scans, scans
    from nidl_neuro.decoding import posterior
    from nidl_neuro.deviation import Deviation
    from nidl_neuro.errors import ScanError
    from nidl_neuro.maps import write_maps
    from nidl_neuro.outputs import write_latents
    from nidl_neuro.preparation import Preparation, restore
    from nidl_neuro.reading import find
    from nidl_neuro.report import write_report
    from nidl_neuro.traversal import traverse

__all__ = [
    "Deviation",
    "Preparation",
    "ScanError",
    "Scans",
    "bits_per_voxel",
    "find",
    "posterior",
    "restore",
    "scans",
    "traverse",
    "write_latents",
    "write_maps",
    "write_report",
]
_HOMES = {
    "Deviation": "deviation",
    "Preparation": "preparation",
    "ScanError": "errors",
    "Scans": "data",
    "bits_per_voxel": "bound",
    "find": "reading",
    "posterior": "decoding",
    "restore": "preparation",
    "scans": "data",
    "traverse": "traversal",
    "write_latents": "outputs",
    "write_maps": "maps",
    "write_report": "report",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
