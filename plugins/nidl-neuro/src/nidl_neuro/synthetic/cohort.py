"""A cohort of synthetic people: a lazy sequence of scans, a table of their causes, files on disk."""

from __future__ import annotations

import json
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nidl_core.errors import InvalidParameter
from nidl_neuro.synthetic.anatomy import Map, deform, field_of_view, render, volumes
from nidl_neuro.synthetic.deformation import Deformation
from nidl_neuro.synthetic.factors import SITES, Intervention, Person, draw_person, generator
from nidl_neuro.synthetic.lesions import Lesion, apply, draw_lesion
from nidl_neuro.synthetic.scanner import scan, scanner
from nidl_neuro.synthetic.table import described, factors

_NAME = "Synthetic cohort of nidl-neuro: computed, no scan of any person"


@dataclass(frozen=True, eq=False)
class SyntheticScan:
    """One synthetic T1-weighted scan, with the truth about it."""

    id: str  # "sub-0001" for index 0
    array: Map  # (*S) intensities in scanner units; of an ideal scan 0 to 1
    affine: NDArray[np.float64]  # (4, 4) from voxels to mm, RAS+
    lesion: NDArray[np.bool_] | None  # (*S), None without a lesion
    tissues: dict[str, Map]  # grey, white, csf, ventricles: parts of voxels (*S), no lesion in them
    factors: dict[str, Any]  # one row of `SyntheticCohort.participants()`

    def image(self) -> nibabel.Nifti1Image:
        """The scan as an image in mm, stored as int16 with a scale factor."""
        return _image(self.array, self.affine, np.int16)


@dataclass(frozen=True)
class SyntheticCohort(Sequence[SyntheticScan]):
    """A sequence of `SyntheticScan`s that computes each when asked; see `synthetic_cohort`.

    It holds nothing but its arguments, so that it pickles and any number of workers can share it.
    """

    n: int
    size: tuple[int, int, int]
    seed: int
    sites: int
    lesions: float
    age: tuple[float, float]

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> SyntheticScan:  # type: ignore[override]
        """The scan of the person `index`; a negative index counts from the end."""
        return self._scan(self._index(index), Intervention())

    def counterfactual(
        self,
        index: int,
        *,
        age: float | None = None,
        sex: str | None = None,
        site: str | None = None,
        lesion: bool | None = None,
    ) -> SyntheticScan:
        """The scan that the person `index` had had, were these causes other; the rest follows.

        All that is individual stays: the person's shape, the place of the lesion in the anatomy, the
        noise in each voxel. So `counterfactual(i, lesion=False)` and `counterfactual(i, lesion=True)` differ by
        the lesion only.
        """
        return self._scan(self._index(index), _checked(age, sex, site, lesion))

    def ideal(self, index: int) -> SyntheticScan:
        """The anatomy of the person `index`, lesion included, before any scanner: intensities 0 to 1."""
        return self._scan(self._index(index), Intervention(), through_scanner=False)

    def jacobian(self, index: int) -> NDArray[np.float64]:
        """Volume in MNI152 of what fills each voxel (*S) of the person `index`, in voxels; positive.

        Below 1 where the person is larger than MNI152, above 1 where smaller.
        """
        person = draw_person(self.seed, self._index(index), self.age, self.sites, Intervention())
        return deform(person).jacobian(field_of_view(self.size)[0])

    def participants(self) -> pd.DataFrame:
        """The true factors of everyone, one row a person, without rendering a scan.

        `described()` in `nidl_neuro.synthetic.table` says what each column means; `write` puts it
        beside the table.
        """
        nothing = Intervention()
        return pd.DataFrame([self._causes(i, nothing).factors for i in range(self.n)])

    def write(self, folder: str | Path) -> Path:
        """The whole cohort as files below `folder`, which must be new or empty; returns it.

        `participants.tsv` with its data dictionary `participants.json`, and for each person
        `sub-0001/anat/sub-0001_T1w.nii.gz` (int16, with a scale factor), as BIDS has it. Masks of
        lesions lie under `derivatives/lesions/`.
        """
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InvalidParameter("folder", str(folder), "a folder that is new or empty")
        rows = []
        for one in self:
            path = folder / one.id / "anat" / f"{one.id}_T1w.nii.gz"
            _save(one.image(), path)
            if one.lesion is not None:
                name = f"{one.id}_label-lesion_mask.nii.gz"
                path = folder / "derivatives" / "lesions" / one.id / "anat" / name
                _save(_image(one.lesion.astype(np.uint8), one.affine, np.uint8), path)
            rows.append(one.factors)
        folder.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_csv(folder / "participants.tsv", sep="\t", index=False, na_rep="n/a")
        _dump(folder / "participants.json", described())
        _dump(folder / "dataset_description.json", self._description("raw"))
        if self.lesions:
            path = folder / "derivatives" / "lesions" / "dataset_description.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            _dump(path, self._description("derivative"))
        return folder

    def _description(self, kind: str) -> dict[str, Any]:
        made = {"Name": "nidl_neuro.datasets.synthetic_cohort", "Parameters": vars(self)}
        return {"Name": _NAME, "BIDSVersion": "1.9.0", "DatasetType": kind, "GeneratedBy": [made]}

    def _index(self, index: int) -> int:
        place = operator.index(index)
        if not -self.n <= place < self.n:
            raise IndexError(f"index {index} of a cohort of {self.n}. Give 0 to {self.n - 1}.")
        return place % self.n

    def _causes(self, index: int, do: Intervention) -> _Causes:
        person = draw_person(self.seed, index, self.age, self.sites, do)
        deformation = deform(person)
        rng = generator(self.seed, index, "lesion")
        drawn = bool(rng.random() < self.lesions)
        lesioned = drawn if do.lesion is None else bool(do.lesion)
        lesion = draw_lesion(rng, deformation) if lesioned else None
        measured = volumes(deformation, person.cortical_thickness)
        return _Causes(person, deformation, lesion, factors(_id(index), person, measured, lesion))

    def _scan(self, index: int, do: Intervention, through_scanner: bool = True) -> SyntheticScan:
        causes = self._causes(index, do)
        person, lesion = causes.person, causes.lesion
        axes, voxel = field_of_view(self.size)
        body = render(causes.deformation, person.cortical_thickness, axes, voxel)
        t1, grey, mask = body.t1, body.grey, None
        if lesion is not None:
            t1, grey, mask = apply(lesion, body, axes, voxel)
        if through_scanner:
            rng = generator(self.seed, index, "scan")
            t1 = scan(t1, grey, axes, voxel, scanner(person.site), rng)
        affine = np.diag([voxel, voxel, voxel, 1.0])
        affine[:3, 3] = [axis[0] for axis in axes]
        tissues = {
            "grey": body.grey,
            "white": body.white,
            "csf": body.fluid,
            "ventricles": body.ventricles,
        }
        return SyntheticScan(_id(index), t1, affine, mask, tissues, causes.factors)


@dataclass(frozen=True, eq=False)
class _Causes:
    """All that there is to know about a person before a scan is rendered."""

    person: Person
    deformation: Deformation
    lesion: Lesion | None
    factors: dict[str, Any]


def _checked(
    age: float | None, sex: str | None, site: str | None, lesion: bool | None
) -> Intervention:
    if age is not None and not (isinstance(age, Real) and 18 <= age <= 95):
        raise InvalidParameter("age", age, "from 18 to 95 years, or None")
    if sex not in (None, "F", "M"):
        raise InvalidParameter("sex", sex, "'F' or 'M', or None")
    if site is not None and site not in tuple(SITES):
        raise InvalidParameter("site", site, "a letter from 'A' to 'Z', or None")
    if not isinstance(lesion, bool | np.bool_ | None):
        raise InvalidParameter("lesion", lesion, "True or False, or None")
    return Intervention(age, sex, site, lesion)


def _id(index: int) -> str:
    return f"sub-{index + 1:04d}"


def _image(
    array: NDArray[Any], affine: NDArray[np.float64], stored: type[np.generic]
) -> nibabel.Nifti1Image:
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_data_dtype(stored)
    return image


def _save(image: nibabel.Nifti1Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)


def _dump(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
