"""What is wrong with a scan, told with its name."""

from __future__ import annotations

from nidl_core.errors import DataError


class ScanError(DataError):
    """A scan that cannot be used. Fields: `name` (its file or id), `problem`, `remedy`."""

    def __init__(self, name: object, problem: str, remedy: str) -> None:
        super().__init__(f"{name}: {problem}. {remedy}")
        self.name = str(name)
        self.problem = problem
        self.remedy = remedy
