"""nidl's own conformance checks on the components of this plugin."""

from nidl_core.testing import installed, parametrize_with_checks


@parametrize_with_checks(installed("nidl-likelihoods"), at_least=100)
def test_conformance(component, check):
    check(component)
