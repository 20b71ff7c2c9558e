"""The columns of the table of participants: their values, and what each means."""

from __future__ import annotations

from typing import Any

from nidl_neuro.synthetic.deformation import SHAPE_MODES
from nidl_neuro.synthetic.factors import Person
from nidl_neuro.synthetic.lesions import Lesion

_MEANS: dict[str, tuple[str, str]] = {
    "age": ("Age at the scan (a cause)", "years"),
    "sex": ("Sex (a cause)", ""),
    "site": ("Site, each with its own scanner (a cause)", ""),
    "head_scale": ("Length of the head relative to MNI152", "1"),
    "cortical_thickness": ("Thickness of the cortex relative to MNI152, at most 1", "1"),
    "ventricle_growth": ("Flow that opens the lateral ventricles, from those of MNI152", "mm"),
    **{
        f"shape_{mode}": (f"Coefficient of the shared shape mode {mode}, standard normal", "1")
        for mode in SHAPE_MODES
    },
    "intracranial_ml": ("Volume of brain and fluid within the head", "ml"),
    "grey_ml": ("Volume of grey matter, without what a lesion takes", "ml"),
    "white_ml": ("Volume of white matter, without what a lesion takes", "ml"),
    "csf_ml": ("Volume of cerebrospinal fluid, ventricles included", "ml"),
    "ventricle_ml": ("Volume of the lateral ventricles of the deformed anatomy", "ml"),
    "lesion": ("Whether there is a focal lesion (a cause)", ""),
    "lesion_ml": ("Volume of the lesion, 0 without one", "ml"),
    "lesion_severity": ("How far the lesion goes from tissue, 0, to fluid, 1", "1"),
    **{f"lesion_{axis}": (f"Centre of the lesion along {axis}, RAS+", "mm") for axis in "xyz"},
}
_LEVELS = {
    "sex": {"F": "female", "M": "male"},
    "lesion": {"True": "one lesion", "False": "none"},
}


def factors(
    id: str, person: Person, volumes: dict[str, float], lesion: Lesion | None
) -> dict[str, Any]:
    """One row: a value for `participant_id` and for each column that `described` describes."""
    nothing = float("nan")
    centre = [nothing] * 3 if lesion is None else lesion.centre.tolist()
    return {
        "participant_id": id,
        "age": person.age,
        "sex": person.sex,
        "site": person.site,
        "head_scale": person.head_scale,
        "cortical_thickness": person.cortical_thickness,
        "ventricle_growth": person.ventricle_growth,
        **{f"shape_{m}": float(c) for m, c in zip(SHAPE_MODES, person.shape, strict=True)},
        **volumes,
        "lesion": lesion is not None,
        "lesion_ml": 0.0 if lesion is None else lesion.volume_ml,
        "lesion_severity": 0.0 if lesion is None else lesion.severity,
        **{f"lesion_{axis}": c for axis, c in zip("xyz", centre, strict=True)},
    }


def described() -> dict[str, dict[str, Any]]:
    """The data dictionary of the table, as BIDS writes it: column -> description, units, levels."""
    dictionary: dict[str, dict[str, Any]] = {
        "participant_id": {"Description": "Identifier of a synthetic person"}
    }
    for column, (meaning, unit) in _MEANS.items():
        dictionary[column] = {"Description": f"{meaning}. Synthetic."}
        if unit:
            dictionary[column]["Units"] = unit
        if column in _LEVELS:
            dictionary[column]["Levels"] = _LEVELS[column]
    return dictionary
