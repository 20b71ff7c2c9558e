"""Check the documents: relative links lead somewhere, and ```python blocks compile and run.

The blocks of one document run in order in one fresh process, in an empty folder. A line
`<!-- skip: run -->` just above a block keeps it from being run; it must compile all the same.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md", "plugins/*/README.md"]
FENCE = re.compile(r"^```(\w*)")
LINK = re.compile(r"\]\(([^)\s]+)[^)]*\)")
ELSEWHERE = re.compile(r"[a-z]+:")  # https:, mailto:
SKIP = "<!-- skip: run -->"


def main() -> int:
    faults = 0
    for document in [path for pattern in DOCUMENTS for path in sorted(ROOT.glob(pattern))]:
        found = list(check(document))
        print(f"{'FAILED' if found else 'ok':6} {document.relative_to(ROOT)}", flush=True)
        for fault in found:
            print(f"       {fault}", file=sys.stderr, flush=True)
        faults += len(found)
    return 1 if faults else 0


def check(document: Path) -> Iterator[str]:
    prose, blocks = split(document.read_text(encoding="utf-8").splitlines())
    for number, line in enumerate(prose, start=1):
        for target in LINK.findall(line):
            path = target.partition("#")[0]
            if not ELSEWHERE.match(target) and not (document.parent / path).exists():
                yield f"line {number}: {target} does not exist"
    runnable = [""] * len(prose)  # each block at its own lines, so that errors name them
    for start, block, runs in blocks:
        try:
            compile("\n" * start + "\n".join(block), document.name, "exec")
        except SyntaxError as err:
            yield f"line {err.lineno}: {err.msg}"
            continue
        if runs:
            runnable[start : start + len(block)] = block
    yield from run(document.stem, "\n".join(runnable))


def split(lines: list[str]) -> tuple[list[str], list[tuple[int, list[str], bool]]]:
    """The lines with all fenced ones blank; and each python block: index, lines, is it to be run."""
    prose, blocks, language, last = [], [], None, ""
    for index, line in enumerate(lines):
        fence = FENCE.match(line)
        prose.append("" if fence or language is not None else line)
        if fence and language is None:
            language, start, runs = fence.group(1), index + 1, last != SKIP
        elif fence:
            if language == "python":
                blocks.append((start, lines[start:index], runs))
            language = None
        last = line.strip() or last
    return prose, blocks


def run(name: str, source: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, f"{name}.py")
        script.write_text(source, encoding="utf-8")
        command = [sys.executable, str(script)]
        environment = {**os.environ, "NIDL_CACHE": str(Path(folder, "cache"))}
        result = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
    if result.returncode:
        yield result.stderr.strip()


if __name__ == "__main__":
    raise SystemExit(main())
