"""nidl's own conformance checks on the components of this plugin."""

from nidl_core.testing import installed, parametrize_with_checks


@parametrize_with_checks(installed("nidl-vae"), at_least=40)
def test_conformance(component, check):
    check(component)
