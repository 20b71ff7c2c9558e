"""The conformance kit on every installed component, on the backend that the environment names.

The list comes from entry points: a new plugin is in the matrix once it is installed.
"""

from __future__ import annotations

from typing import Any

from nidl_core.testing import installed, parametrize_with_checks


@parametrize_with_checks(installed(), at_least=300)
def test_conformance(component: Any, check: Any) -> None:
    check(component)
