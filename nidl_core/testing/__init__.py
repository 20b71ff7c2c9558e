"""The conformance kit: what every component promises, as checks that a plugin runs on itself.

A plugin's whole proof is a few lines, in a test module of its own:

    from nidl_core.testing import installed, parametrize_with_checks

    @parametrize_with_checks(installed("nidl-student-t"), at_least=20)
    def test_conformance(component, check):
        check(component)

`nidl check DISTRIBUTION` runs the same checks without pytest. How a component wants to be built for
them, it says in an optional classmethod `conformance()`: see `nidl_core.testing.cases`. The backend
comes from NIDL_TEST_BACKEND and NIDL_TEST_DEVICE: see `nidl_core.testing.backends`.

pytest is needed by `parametrize_with_checks` alone: `pip install nidl-core[testing]`.
"""

from nidl_core.testing.cases import Case, cases_of, installed
from nidl_core.testing.catalogue import Check, NotApplicable, checks_for
from nidl_core.testing.parametrize import parametrize_with_checks
from nidl_core.testing.running import Report, Result, run_checks

__all__ = [
    "Case",
    "Check",
    "NotApplicable",
    "Report",
    "Result",
    "cases_of",
    "checks_for",
    "installed",
    "parametrize_with_checks",
    "run_checks",
]
