"""Sound components pass: with dropout, batch norm, frozen layers, running figures, any support."""

from __future__ import annotations

from typing import Any

from good_components import MODULES
from good_estimator import AutoEncoder

from nidl_core.testing import Case, parametrize_with_checks


@parametrize_with_checks([*MODULES, AutoEncoder], at_least=250)
def test_a_sound_component_passes(component: Case, check: Any) -> None:
    check(component)
