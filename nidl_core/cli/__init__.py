"""The command `nidl`: one module a group of commands, and those of plugins through a hook.

Nothing here imports torch before a command needs it.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

from nidl_core import hooks
from nidl_core.cli import (
    check,
    completion,
    demos,
    doctor,
    explain,
    fitting,
    listing,
    models,
    new_plugin,
)
from nidl_core.discovery import CORE, prints_aside
from nidl_core.errors import NidlError

# Each adds its commands, in this order.
MODULES = (listing, explain, fitting, models, doctor, check, new_plugin, completion)

_LONGEST = 800  # characters of an error's text
_DEBUG: dict[str, Any] = {"action": "store_true", "help": "show the traceback of an error"}


@prints_aside()
def main(argv: Sequence[str] | None = None) -> int:
    """Run `nidl` with these arguments; the exit status: 0, 1 for an error, 2 for wrong usage."""
    given = list(sys.argv[1:] if argv is None else argv)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            return _run(given)
        except BrokenPipeError:  # `nidl list | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except KeyboardInterrupt:
            print("nidl: interrupted", file=sys.stderr)
            return 130
        except Exception as err:  # nidl's own, a plugin's bug, a full disk: one line for all
            if "--debug" in given:
                raise
            print(f"nidl: {_one_line(err)}", file=sys.stderr)
            if not isinstance(err, NidlError):
                print("nidl: --debug shows where it happened", file=sys.stderr)
            return 1


def _run(given: list[str]) -> int:
    parser, commands = _parser()
    command = next((word for word in given if not word.startswith("-")), None)
    parsers: Iterable[argparse.ArgumentParser] = commands.choices.values()
    if completion.asked() or (command not in commands.choices and "--version" not in given):
        parsers = [*_add_plugins(commands), *parsers]  # loaded only when needed
    for each in parsers:
        if "--debug" not in each._option_string_actions:  # it counts after the command as well
            each.add_argument("--debug", default=argparse.SUPPRESS, **_DEBUG)
    if completion.asked():
        completion.answer(parser)
    arguments = parser.parse_args(given)
    if not hasattr(arguments, "run"):
        parser.print_help()
        return 2
    return arguments.run(arguments) or 0


def _parser() -> tuple[argparse.ArgumentParser, argparse._SubParsersAction[Any]]:
    parser = argparse.ArgumentParser(
        prog="nidl", description="Deep generative models for (neuro)imaging, assembled by name."
    )
    parser.add_argument("--debug", **_DEBUG)
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for module in MODULES:
        module.add(commands)
    return parser, commands


def _add_plugins(
    commands: argparse._SubParsersAction[Any],
) -> Iterable[argparse.ArgumentParser]:
    """Let plugins add their commands, one by one: a broken one takes no other away. The parsers of demos."""
    demonstrations = demos.add(commands)
    before = dict(commands.choices)
    hooks.collect("nidl_cli_commands", subparsers=commands)
    commands.choices.update(before)  # Python 3.10 lets a plugin take the core's names
    return demonstrations.choices.values()


def _one_line(err: BaseException) -> str:
    """The error in one line of bounded length, safe for a terminal."""
    text = "".join(c if c.isprintable() else "?" for c in " ".join(str(err).split()))
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return f"{type(err).__name__}: {text}" if text else type(err).__name__


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    kind = "warning" if category is UserWarning else category.__name__
    print(f"nidl: {kind}: {' '.join(str(message).split())}", file=sys.stderr)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(f"nidl-core {version(CORE)}")
        parser.exit()
