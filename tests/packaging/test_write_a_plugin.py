"""docs/write_a_plugin.md, followed to the letter in an empty folder and a fresh environment."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "write_a_plugin.md"
BLOCK = re.compile(r"^(<!-- skip: run -->\n)?```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PATH = re.compile(r"# (\S+\.py)\n")


def script() -> str:
    """The document as a shell script: sh blocks are run, files written where they stand."""
    steps = ["set -e"]
    for skip, language, text in BLOCK.findall(DOCUMENT.read_text(encoding="utf-8")):
        if language == "sh" and not skip:
            steps.append(text)
        elif language == "python" and (path := PATH.match(text)):
            steps.append(f"cat > {shlex.quote(path[1])} <<'END OF FILE'\n{text}END OF FILE")
    return "\n".join(steps)


def test_the_document_leads_from_an_empty_folder_to_a_passing_check(fresh, tmp_path):
    assert script().splitlines()[-1] == "nidl check nidl-log-normal"
    told = fresh.run("bash", "-c", script(), cwd=tmp_path)
    assert "LogNormal(scale=0.8)" in told
    runs = re.findall(r"^in all \d+ checks ran, 0 of them failed as expected$", told, re.MULTILINE)
    assert len(runs) == 2
    (passed, failed) = re.findall(r"in all: (\d+) passed, (\d+) failed", told)[-1]
    assert int(passed) >= 40
    assert int(failed) == 0
