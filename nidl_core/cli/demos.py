"""`nidl demo NAME`: what plugins show of themselves, from end to end."""

from __future__ import annotations

import argparse
from typing import Any

from nidl_core import hooks
from nidl_core.errors import NidlError


def add(commands: argparse._SubParsersAction[Any]) -> argparse._SubParsersAction[Any]:
    """Add the command, and under it what plugins have; the parsers of the demonstrations."""
    demo = commands.add_parser("demo", help="the main job from end to end, on data that is at hand")
    demos: argparse._SubParsersAction[Any] = demo.add_subparsers(
        title="demonstrations", metavar="NAME"
    )
    hooks.collect("nidl_cli_demos", subparsers=demos)

    def run(arguments: argparse.Namespace) -> int:
        if not demos.choices:
            raise NidlError(
                "no plugin that is installed has a demonstration: pip install nidl-neuro nidl-vae"
            )
        demo.print_help()
        return 2

    demo.set_defaults(run=run)
    return demos
