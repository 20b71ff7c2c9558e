"""Virtual environments for what is compared with, made once below build/ and used again."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "tests" / "constraints.txt"


def python_with(packages: Sequence[str], folder: Path) -> Path | None:
    """The interpreter of an environment with these packages; None, said on stderr, if it cannot be had.

    No packages: this interpreter. pip is used as it is configured, with the torch that the tests pin.
    """
    if not packages:
        return Path(sys.executable)
    wanted = ["torch", *packages]
    text = "\n".join([sys.version, CONSTRAINTS.read_text(), *wanted])
    made = folder / f"{packages[0]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    python, done = made / "bin" / "python", made / "complete"
    if done.exists():
        return python
    print(f"making an environment with {', '.join(wanted)}", file=sys.stderr, flush=True)
    venv.create(made, with_pip=True, clear=True)
    install = [python, "-m", "pip", "install", "--quiet", "-c", CONSTRAINTS, *wanted]
    failed = subprocess.run(install, capture_output=True, text=True)
    if failed.returncode:
        why = failed.stderr.strip().splitlines()[-1:] or ["pip gave no reason"]
        print(f"left out {', '.join(packages)}: {why[0]}", file=sys.stderr, flush=True)
        return None
    done.touch()
    return python
