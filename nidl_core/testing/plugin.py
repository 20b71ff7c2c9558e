"""For pytest, when asked for: the number of conformance checks that ran, at the end of a run.

Write `pytest_plugins = ["nidl_core.testing.plugin"]` in the top conftest.py, or run
`pytest -p nidl_core.testing.plugin`. A run in which all checks were skipped fails.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from nidl_core.testing.cases import Case
from nidl_core.testing.catalogue import Check

_PROPERTY = "nidl_check"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the items that are conformance checks, so that their reports can be told apart."""
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        if isinstance(params.get("check"), Check) and isinstance(params.get("component"), Case):
            item.user_properties.append((_PROPERTY, params["component"].id))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that had checks and ran none."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    ran, skipped = _counts(reporter)
    if sum(skipped.values()) and not sum(ran.values()) and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many checks ran, by component."""
    ran, skipped = _counts(terminalreporter)
    if not ran and not skipped:
        return
    terminalreporter.section("nidl conformance")
    for case in sorted({*ran, *skipped}):
        more = f", {skipped[case]} skipped" if skipped[case] else ""
        terminalreporter.write_line(f"{case}: {ran[case]} checks ran{more}")
    expected = len(_reports(terminalreporter, "xfailed"))
    terminalreporter.write_line(
        f"in all {sum(ran.values())} checks ran, {expected} of them failed as expected"
    )


def _counts(reporter: Any) -> tuple[Counter[str], Counter[str]]:
    ran: Counter[str] = Counter()
    for outcome in ("passed", "failed", "xfailed", "xpassed"):
        ran.update(_reports(reporter, outcome))
    return ran, Counter(_reports(reporter, "skipped"))


def _reports(reporter: Any, outcome: str) -> list[str]:
    """The case of every report with this outcome."""
    found = reporter.stats.get(outcome, []) if reporter is not None else []
    properties = [p for report in found for p in getattr(report, "user_properties", [])]
    return [value for name, value in properties if name == _PROPERTY]
