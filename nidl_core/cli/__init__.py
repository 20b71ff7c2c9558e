"""The command `nidl`: one module a group of commands, and those of plugins through a hook.

Nothing here imports torch before a command needs it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from nidl_core.cli import listing
from nidl_core.discovery import CORE
from nidl_core.errors import NidlError
from nidl_core.hooks import manager

MODULES = (listing,)  # each adds its commands


def main(argv: Sequence[str] | None = None) -> int:
    """Run `nidl` with these arguments; the exit status: 0, 1 for an error, 2 for wrong usage."""
    given = list(sys.argv[1:] if argv is None else argv)
    parser, commands = _parser()
    if not given or given[0] not in commands.choices:
        manager().hook.nidl_cli_commands(subparsers=commands)  # plugins are loaded only when needed
    arguments = parser.parse_args(given)
    if not hasattr(arguments, "run"):
        parser.print_help()
        return 2
    try:
        return arguments.run(arguments) or 0
    except NidlError as err:
        if arguments.debug:
            raise
        print(f"nidl: {type(err).__name__}: {err}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `nidl list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("nidl: interrupted", file=sys.stderr)
        return 130


def _parser() -> tuple[argparse.ArgumentParser, argparse._SubParsersAction[Any]]:
    parser = argparse.ArgumentParser(
        prog="nidl", description="Deep generative models for (neuro)imaging, assembled by name."
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for module in MODULES:
        module.add(commands)
    return parser, commands


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(f"nidl-core {version(CORE)}")
        parser.exit()
