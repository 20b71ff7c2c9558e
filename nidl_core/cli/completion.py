"""`nidl completion`: the script that makes a shell complete `nidl`'s commands, names and files.

argcomplete does the work. It is imported only when a shell asks, and to print its script.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

from nidl_core.errors import NidlError
from nidl_core.registry import REGISTRIES, registry

SHELLS = {  # how each evaluates the script at its start
    "bash": 'in ~/.bashrc: eval "$(nidl completion bash)"',
    "zsh": 'in ~/.zshrc, after compinit: eval "$(nidl completion zsh)"',
    "fish": "in ~/.config/fish/config.fish: nidl completion fish | source",
}


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command of this module."""
    completion = commands.add_parser(
        "completion",
        help="print the script for shell completion",
        description="Print the script that completes nidl's commands, names and files.",
        epilog="\n".join(SHELLS.values()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    completion.add_argument("shell", choices=tuple(SHELLS), metavar="SHELL", help=", ".join(SHELLS))
    completion.set_defaults(run=_completion)


def answer(parser: argparse.ArgumentParser) -> None:
    """Where a shell asks for completions, give them and end the process."""
    import argcomplete

    argcomplete.autocomplete(parser, always_complete_options=False)


def asked() -> bool:
    """Whether a shell asks for completions."""
    return "_ARGCOMPLETE" in os.environ


def of_components(action: argparse.Action) -> None:
    """Complete an argument by the names and ids of components (of `--kind`, if given)."""

    def complete(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
        kind = getattr(parsed_args, "kind", None)
        entries = [e for k in ([kind] if kind else REGISTRIES) for e in registry(k).entries()]
        return sorted({e.id if ":" in prefix else e.name for e in entries})

    _set(action, complete)


def of_files(action: argparse.Action, *suffixes: str) -> None:
    """Complete an argument by files that end so; by all files if none is given."""

    def complete(prefix: str, **more: Any) -> list[str]:
        from argcomplete.completers import FilesCompleter

        found: list[str] = FilesCompleter(suffixes)(prefix, **more)
        return found

    _set(action, complete)


def _set(action: argparse.Action, complete: Callable[..., list[str]]) -> None:
    action.completer = complete  # type: ignore[attr-defined]  # where argcomplete looks


def _completion(arguments: argparse.Namespace) -> int:
    try:
        from argcomplete.shell_integration import shellcode
    except ImportError as err:
        raise NidlError("completion needs argcomplete: pip install argcomplete") from err
    print(shellcode(["nidl"], shell=arguments.shell))
    return 0
