"""The whole contract of nidl, on a small network of each family."""

from nidl_core.testing import installed, parametrize_with_checks


@parametrize_with_checks(installed("nidl-monai"), at_least=300)
def test_conformance(component, check):
    check(component)
