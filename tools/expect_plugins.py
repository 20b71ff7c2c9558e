"""Fail unless exactly the plugins named in NIDL_EXPECT (a,b,c) are installed, and the core as a wheel."""

import importlib.util
import os
import sys
import sysconfig
from importlib.metadata import distributions
from pathlib import Path


def main() -> int:
    expected = {name for name in os.environ["NIDL_EXPECT"].split(",") if name}
    found = {
        distribution.metadata["Name"]
        for distribution in distributions()
        if any(point.group.startswith("nidl.") for point in distribution.entry_points)
    } - {"nidl-core"}
    if found != expected:
        print(f"expected the plugins {sorted(expected)}, found {sorted(found)}", file=sys.stderr)
        return 1
    core = importlib.util.find_spec("nidl_core")
    if core is None or Path(sysconfig.get_path("purelib")) not in Path(core.origin).parents:
        print(f"nidl_core is not the installed one: {core}", file=sys.stderr)
        return 1
    print(f"Python {sys.version.split()[0]}, plugins: {', '.join(sorted(found)) or 'none'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
