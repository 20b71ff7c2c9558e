"""The whole contract of nidl, on a small model of each way to see an image."""

from nidl_core.testing import installed, parametrize_with_checks


@parametrize_with_checks(installed("nidl-timm"), at_least=110)
def test_conformance(component, check):
    check(component)
