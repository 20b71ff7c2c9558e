"""Make torchvision importable beside a CPU build of PyTorch, in the environment that runs this.

A registry's torchvision for Linux is a CUDA build. Beside a CPU build of PyTorch its compiled operators
cannot be loaded, which it tolerates, but for a file that then declares what two of them, `nms` and
`qnms`, would give: that fails, and with it `import torchvision`, timm and lightning. timm needs none of
these operators, so the two declarations are made to depend on them, as torchvision makes the others.
Where torchvision can be imported, nothing is changed.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> int:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or importable():
        return 0
    path = Path(spec.origin).with_name("_meta_registrations.py")
    text = path.read_text(encoding="utf-8")
    for name in ("nms", "qnms"):
        text = text.replace(
            f'@torch.library.register_fake("torchvision::{name}")', f'@register_meta("{name}")'
        )
    # Replaced, not written into: installers link files of many environments to one copy.
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)
    print("torchvision: the compiled operators are of another build of PyTorch and stay out")
    return 0 if importable() else 1


def importable() -> bool:
    command = [sys.executable, "-c", "import torchvision"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    raise SystemExit(main())
