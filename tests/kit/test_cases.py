"""Cases: what is checked, how it is built, and what a component says of itself."""

from __future__ import annotations

from typing import Any

import pytest
from good_components import SMALL, Elbo, Gauss, LinearDecoder, LinearEncoder
from good_estimator import AutoEncoder

import nidl_core
from nidl_core import Encoder
from nidl_core.errors import ShapeError, SpecError, UnknownParameter
from nidl_core.testing import Case, cases_of, checks_for, installed
from nidl_core.testing.cases import SHAPES, TABLE, as_cases, kind_of, missing
from nidl_core.testing.running import run_check


def saying(*facts: Any) -> type:
    """An encoder whose `conformance()` says this."""

    class Says(LinearEncoder):
        @classmethod
        def conformance(cls) -> Any:
            return list(facts)

    return Says


@pytest.mark.parametrize(
    ("cls", "kind"),
    [
        (LinearEncoder, "encoders"),
        (LinearDecoder, "decoders"),
        (Gauss, "likelihoods"),
        (Elbo, "losses"),
        (AutoEncoder, "estimators"),
    ],
)
def test_a_class_has_the_kind_of_its_interface(cls: type, kind: str) -> None:
    assert kind_of(cls) == kind
    assert [case.kind for case in as_cases([cls])] == [kind]


def test_a_class_without_conformance_has_one_case_of_its_defaults() -> None:
    (case,) = cases_of("encoders", LinearEncoder)
    assert (case.params, case.shapes) == ({}, list(SHAPES))
    (case,) = cases_of("estimators", AutoEncoder)
    assert case.shapes == list(TABLE)


def test_conformance_names_a_case_each() -> None:
    wide = {
        "params": {"width": 9},
        "shapes": [[2, 5]],
        "expected_failures": {"check_pickle": "why"},
    }
    one, other = cases_of("encoders", saying({}, wide))
    assert one.params == {}
    assert (other.id, other.shapes) == ("encoders-Says[width=9]", [(2, 5)])
    assert other.expected_failures == {"check_pickle": "why"}
    assert other.build((2, 5)).out_features == 9


def test_the_default_shapes_have_odd_and_uneven_sides() -> None:
    assert any(side % 2 for shape in SHAPES for side in shape[1:])
    assert all(len(set(shape[1:])) > 1 for shape in SHAPES if len(shape) > 2 and shape[0] > 1)


def test_a_key_that_nobody_reads_is_refused() -> None:
    with pytest.raises(SpecError) as caught:
        cases_of("encoders", saying({"parms": {}}))
    assert str(caught.value).endswith(
        "conformance() names parms. Keys: expected_failures, needs, params, reference, shapes."
    )


def test_a_conformance_without_cases_is_refused() -> None:
    with pytest.raises(SpecError, match=r"conformance\(\) is empty. Return at least one case"):
        cases_of("encoders", saying())


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (("encoder", LinearEncoder), "there is no kind 'encoder'. Kinds: estimators, encoders, "),
        (("encoders", LinearEncoder, {}, []), "encoders-LinearEncoder: shapes is empty. Name at"),
    ],
)
def test_an_impossible_case_is_refused(given: Any, text: str) -> None:
    with pytest.raises(SpecError) as caught:
        Case(*given)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize("strange", [dict, 3, "linear", LinearEncoder((7,))], ids=str)
def test_what_is_no_component_is_refused(strange: Any) -> None:
    with pytest.raises(SpecError, match="a component is a Case or a component class, got"):
        as_cases([strange])


def test_an_unknown_parameter_is_told_with_those_there_are() -> None:
    case = Case("encoders", LinearEncoder, {"widht": 3})
    with pytest.raises(UnknownParameter, match="Did you mean 'width'"):
        case.build((7,))


def test_a_parameter_that_only_an_estimator_gives_is_refused() -> None:
    case = Case("decoders", LinearDecoder, {"output_shape": (7,)})
    with pytest.raises(UnknownParameter, match="no parameter 'output_shape'"):
        case.build((7,))


def test_a_component_that_changes_its_parameters_does_not_change_the_case() -> None:
    class Pops(LinearEncoder):
        def __init__(self, input_shape: tuple[int, ...], widths: Any = (4,)) -> None:
            super().__init__(input_shape, widths.pop())

    case = Case("encoders", Pops, {"widths": [9, 5]})
    assert [case.build((7,)).out_features for _ in range(2)] == [5, 5]
    assert case.params == {"widths": [9, 5]}


def test_shapes_that_are_refused_are_left_out_and_other_errors_are_not_hidden() -> None:
    class Picky(LinearEncoder):
        def __init__(self, input_shape: tuple[int, ...]) -> None:
            if len(input_shape) == 1:
                raise ShapeError(f"no tables, got {input_shape}")
            if len(input_shape) > 3:
                raise ValueError("another error")
            super().__init__(input_shape)

    assert Case("encoders", Picky, shapes=[(7,), (1, 6, 5)]).accepted == [(1, 6, 5)]
    with pytest.raises(ValueError, match="another error"):
        _ = Case("encoders", Picky, shapes=[(7,), (1, 6, 5, 4)]).accepted


def test_the_id_is_short_whatever_the_parameters_are() -> None:
    spec = {"name": "mlp", "params": {"widths": list(range(50))}}
    case = Case("estimators", "vae", {"encoder": spec, "text": "x" * 90, "d": [1, 2], "e": 1.5})
    assert case.id.startswith("estimators-vae[encoder=mlp,text=xxxx")
    assert len(case.id) < 80


def test_cases_that_differ_in_their_shapes_alone_have_ids_of_their_own() -> None:
    cases = [Case("encoders", LinearEncoder, shapes=[shape]) for shape in SMALL]
    expected = ["", "#2", "#3"]
    assert [case.id for case in as_cases(cases)] == [
        f"encoders-LinearEncoder{number}" for number in expected
    ]
    assert [case.id for case in as_cases(as_cases(cases)[1:])] == [
        f"encoders-LinearEncoder{number}" for number in expected[:2]
    ]


def test_several_needs_of_one_kind_are_all_looked_for() -> None:
    needs = {"encoders": ["linear", "no_such_encoder"]}
    with nidl_core.encoders.temporary("linear", LinearEncoder):
        lacks = missing(Case("estimators", AutoEncoder, needs=needs))
    assert lacks is not None and "no_such_encoder" in lacks


def test_what_is_needed_and_not_installed_skips_all_checks_and_says_what() -> None:
    (case,) = cases_of("encoders", saying({"needs": {"likelihoods": "no_such_likelihood"}}))
    assert "no likelihood named 'no_such_likelihood'" in str(missing(case))
    outcomes = {run_check(case, check).outcome for check in checks_for(case)}
    assert outcomes == {"skipped"}


def test_what_is_needed_and_switched_off_skips_too(
    loopback: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (case,) = cases_of("encoders", saying({"needs": {"losses": "elbo"}}))
    assert missing(case) is None
    monkeypatch.setenv("NIDL_DISABLE_PLUGINS", "nidl-loopback")
    assert "NIDL_DISABLE_PLUGINS" in str(missing(case))


def test_installed_finds_the_components_of_a_distribution_in_any_spelling(loopback: str) -> None:
    for name in (loopback, "NIDL_loopback"):
        assert [case.id for case in installed(name)] == [
            "estimators-auto_encoder",
            "estimators-plain_statistic",
            "encoders-linear",
            "losses-elbo",
        ]
    assert [case.cls for case in installed(loopback, "encoders")] == [LinearEncoder]
    assert "encoders-linear" in [case.id for case in installed()]
    assert "encoders-linear" in [case.id for case in installed(kind="encoders")]


def test_installed_leaves_out_what_is_switched_off(
    loopback: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIDL_DISABLE_PLUGINS", "nidl-loopback:linear")
    ids = [case.id for case in installed()]
    assert "losses-elbo" in ids
    assert "encoders-linear" not in ids


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (("no-such-dist",), "no installed component of no-such-dist. `nidl list` shows"),
        (
            ("nidl-loopback", "decoders"),
            "no installed component of nidl-loopback in the kind decod",
        ),
    ],
)
def test_nothing_installed_is_an_error(given: Any, text: str, loopback: str) -> None:
    with pytest.raises(SpecError) as caught:
        installed(*given)
    assert str(caught.value).startswith(text)


def test_a_case_by_name_is_the_class_that_is_registered() -> None:
    import nidl_core

    with nidl_core.encoders.temporary("flat", LinearEncoder):
        case = Case("encoders", "flat")
        assert (case.name, case.cls) == ("flat", LinearEncoder)
        assert issubclass(case.cls, Encoder)
        # Other processes do not have the name; and a name for a session needs no style.
        outcomes = {c.name: run_check(case, c) for c in checks_for(case) if "process" in c.name}
        assert "registered in this process alone" in outcomes["check_fresh_process"].text
        assert "check_name" not in [check.name for check in checks_for(case)]
