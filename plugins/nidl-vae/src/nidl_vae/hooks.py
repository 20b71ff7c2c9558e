"""What this plugin answers to nidl's hooks: `nidl demo digits`. Imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nidl_core.hooks import hookimpl


@hookimpl
def nidl_cli_demos(subparsers: argparse._SubParsersAction[Any]) -> None:
    demo = subparsers.add_parser(
        "digits", help="train, compare, draw, save and reload a VAE on handwritten digits"
    )
    demo.add_argument(
        "--out", type=Path, default=Path("nidl-demo"), help="folder for what it makes"
    )
    demo.add_argument("--epochs", type=int, default=100, help="passes over the data (100)")
    demo.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    from nidl_vae.demo import digits

    digits(arguments.out, epochs=arguments.epochs)
    return 0
