"""The synthetic cohort: the causes it states are the causes of what is seen, and of nothing else."""

import json
import multiprocessing
import operator
import pickle
import random
import time

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from nidl_core.errors import InvalidParameter
from nidl_neuro.datasets import synthetic_cohort
from nidl_neuro.synthetic.anatomy import deform, field_of_view, volumes
from nidl_neuro.synthetic.deformation import (
    CENTRE,
    LATTICE,
    RESIDUAL_SHAPE,
    exponential,
    regular_axes,
    spline,
)
from nidl_neuro.synthetic.factors import Intervention, Person, draw_person
from nidl_neuro.synthetic.scanner import scanner
from nidl_neuro.synthetic.table import described

SMALL = 24
TISSUES = {"grey": "grey_ml", "white": "white_ml", "csf": "csf_ml", "ventricles": "ventricle_ml"}


@pytest.fixture(scope="module")
def table():
    return synthetic_cohort(60, lesions=0.3, sites=3, seed=5).participants()


def same(one, other):
    assert one.id == other.id and one.factors.keys() == other.factors.keys()
    for name, value in one.factors.items():
        assert value == other.factors[name] or np.isnan(value), name
    np.testing.assert_array_equal(one.array, other.array)
    assert (one.lesion is None) == (other.lesion is None)
    if one.lesion is not None:
        np.testing.assert_array_equal(one.lesion, other.lesion)


def blocks(volume, factor=2):
    a, b, c = (n // factor for n in volume.shape)
    return volume.reshape(a, factor, b, factor, c, factor).mean(axis=(1, 3, 5))


def correlation(one, other):
    return np.corrcoef(one.ravel(), other.ravel())[0, 1]


def test_a_person_is_the_same_at_any_resolution():
    coarse, middle, fine = (synthetic_cohort(3, size=n, lesions=1.0)[2] for n in (32, 64, 96))
    assert coarse.factors == middle.factors == fine.factors
    assert correlation(coarse.array, blocks(middle.array)) > 0.98
    assert correlation(coarse.array, blocks(fine.array, 3)) > 0.98
    for name, part in coarse.tissues.items():
        assert np.abs(part - blocks(middle.tissues[name])).mean() < 0.01, name
    overlap = blocks(middle.lesion.astype(float))[coarse.lesion].mean()
    assert overlap > 0.4  # a voxel of the one has eight of the other
    assert coarse.lesion.sum() * 6**3 == pytest.approx(fine.lesion.sum() * 2**3, rel=0.5)


def test_a_person_is_in_the_same_place_at_any_resolution_and_shape_of_grid():
    centres = []
    for size in (32, 64, (57, 64, 61), (40, 70, 33)):
        one = synthetic_cohort(1, size=size)[0]
        middle = ndimage.center_of_mass(one.tissues["white"])
        centres.append(nibabel.affines.apply_affine(one.affine, middle))
    np.testing.assert_allclose(centres, np.repeat(centres[:1], 4, axis=0), atol=0.2)


def test_a_person_depends_neither_on_how_many_there_are_nor_on_the_order_of_access():
    few, many = synthetic_cohort(3, size=SMALL), synthetic_cohort(1000, size=SMALL)
    backwards = {i: many[i] for i in (2, 1, 0)}
    for index, one in enumerate(few):
        same(one, backwards[index])
    same(few[-1], few[2])


def test_a_cohort_pickles_and_a_fresh_process_computes_the_same():
    cohort = synthetic_cohort(4, size=SMALL, lesions=1.0, seed=3)
    same(pickle.loads(pickle.dumps(cohort))[1], cohort[1])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        same(pool.apply(operator.getitem, (cohort, 3)), cohort[3])


def test_the_table_holds_the_factors_of_the_scans():
    cohort = synthetic_cohort(3, size=SMALL, lesions=0.5)
    expected = pd.DataFrame([one.factors for one in cohort])
    pd.testing.assert_frame_equal(cohort.participants(), expected, check_exact=True)
    assert list(expected.columns) == list(described())
    assert list(expected.participant_id) == ["sub-0001", "sub-0002", "sub-0003"]


def test_seeds_and_indices_give_different_people():
    people = [synthetic_cohort(2, size=SMALL, seed=s)[i] for s in (0, 1, 2**40) for i in (0, 1)]
    for a, one in enumerate(people):
        for other in people[:a]:
            assert one.factors["age"] != other.factors["age"]
            assert one.factors["shape_bend"] != other.factors["shape_bend"]
            assert not np.array_equal(one.tissues["grey"], other.tissues["grey"])


def test_arguments_change_what_they_name_and_nothing_else():
    plain = synthetic_cohort(4, size=SMALL, sites=1)
    sited = synthetic_cohort(4, size=SMALL, sites=26)
    lesioned = synthetic_cohort(4, size=SMALL, sites=1, lesions=1.0)
    for a, b, c in zip(plain, sited, lesioned, strict=True):
        assert {k for k in a.factors if a.factors[k] != b.factors[k] and k[:7] != "lesion_"} == {
            "site"
        }
        changed = {k for k in a.factors if a.factors[k] != c.factors[k]}
        assert all(name.startswith("lesion") for name in changed)


def test_global_random_states_are_untouched():
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    synthetic_cohort(1, size=SMALL, lesions=1.0)[0]
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert torch.equal(torch.get_rng_state(), before[2])


def test_scans_are_float32_and_cover_the_head():
    one = synthetic_cohort(9, size=(57, 64, 70), lesions=1.0)[8]
    assert one.array.dtype == np.float32 and one.array.shape == (57, 64, 70)
    assert one.lesion.dtype == bool and one.lesion.shape == one.array.shape
    np.testing.assert_array_equal(np.diag(one.affine), [3, 3, 3, 1])
    for name, part in one.tissues.items():
        assert part.shape == one.array.shape and part.min() >= 0 and part.max() <= 1, name
    brain = sum(one.tissues[name] for name in ("grey", "white", "csf")) > 0.5
    assert not any(side.any() for axis in range(3) for side in np.moveaxis(brain, axis, 0)[[0, -1]])


def people(n):
    return [draw_person(11, i, (18, 95), 2, Intervention()) for i in range(n)]


def extreme_people():
    """Every factor at its limit at once, which no cohort comes near."""
    rng = np.random.default_rng(0)
    for growth, scale in [(14.0, 0.865), (14.0, 1.005), (-4.5, 1.005)]:
        signs = [rng.choice([-2.5, 2.5], size=shape) for shape in ((4,), RESIDUAL_SHAPE)]
        yield Person(95.0, "M", "A", scale, 0.7, growth, signs[0], 3.0 * signs[1])


@pytest.mark.parametrize("size", [(31, 34, 29), (56, 64, 56)], ids=str)
def test_no_voxel_folds(size):
    axes, voxel = field_of_view(size)
    for person in [*people(12), *extreme_people()]:
        shape = deform(person)
        assert shape.jacobian(axes).min() > 0
        points = shape.at(axes) / voxel
        assert np.linalg.det(forward_differences(points)).min() > 0


def forward_differences(points):
    inner = (slice(None), *(slice(0, n - 1) for n in points.shape[1:]))
    sides = [np.take(points, range(1, n), axis=a + 1) for a, n in enumerate(points.shape[1:])]
    steps = [side[inner] - points[inner] for side in sides]
    return np.moveaxis(np.stack(steps, axis=1), (0, 1), (-2, -1))


def test_the_jacobian_is_the_derivative_of_the_deformation():
    shape = deform(people(1)[0])
    place, step = np.add(CENTRE, [7.3, -21.1, 12.9]), 1e-4
    axes = tuple(np.array([x, x + step]) for x in place)
    numeric = np.linalg.det(forward_differences(shape.at(axes) / step))
    np.testing.assert_allclose(shape.jacobian(axes)[:1, :1, :1], numeric, rtol=1e-3)


def test_the_jacobian_of_a_cohort_integrates_to_the_volume_of_the_template():
    cohort = synthetic_cohort(2, size=64)
    for index in (0, 1):
        brain = sum(cohort.ideal(index).tissues[name] for name in ("grey", "white", "csf"))
        template = (brain * cohort.jacobian(index)).sum() * 3**3 / 1000
        assert template == pytest.approx(1887, rel=0.01)  # ml with intensity in nilearn's T1


def test_the_flow_of_a_linear_velocity_is_its_exponential():
    # Away from the border, dx/dt = 0.1 x leads from x to x e^0.1.
    x = np.meshgrid(*LATTICE, indexing="ij")[0]
    velocity = np.stack([0.1 * x, 0 * x, 0 * x])
    inner = exponential(velocity)[:, 5:-5, 5:-5, 5:-5]
    np.testing.assert_allclose(
        inner[0], (np.exp(0.1) - 1) * x[5:-5, 5:-5, 5:-5], rtol=2e-3, atol=1e-9
    )
    assert not inner[1:].any()


def test_a_flow_backwards_undoes_it():
    velocity = 3 * np.stack(np.meshgrid(*(np.sin(axis / 25) for axis in LATTICE), indexing="ij"))
    there, back = exponential(velocity), exponential(-velocity)
    nodes = np.indices(there.shape[1:])
    returned = [ndimage.map_coordinates(u, nodes + there / 6, order=1) for u in back] + there
    inner = np.abs(returned)[:, 3:-3, 3:-3, 3:-3]
    assert inner.max() < 0.15 and np.abs(there).max() > 2


@pytest.mark.parametrize("slope_along", [None, 0, 1, 2])
def test_the_spline_is_scipys(slope_along):
    rng = np.random.default_rng(0)
    lattice = regular_axes((1.0, -2.0, 3.0), (7, 8, 9), 2.5)
    points = tuple(np.sort(rng.uniform(axis[1], axis[-2], 4)) for axis in lattice)
    values = rng.standard_normal((1, 7, 8, 9))

    def expected(shift):
        moved = [p + shift * (axis == slope_along) for axis, p in enumerate(points)]
        places = [(p - axis[0]) / 2.5 for p, axis in zip(moved, lattice, strict=True)]
        grid = np.meshgrid(*places, indexing="ij")
        return ndimage.map_coordinates(values[0], grid, order=3, prefilter=False, mode="nearest")

    wanted = expected(0) if slope_along is None else (expected(1e-4) - expected(-1e-4)) / 2e-4
    np.testing.assert_allclose(spline(values, lattice, points, slope_along)[0], wanted, atol=1e-6)


@pytest.mark.parametrize("size", [48, (84, 96, 84)], ids=str)
def test_volumes_are_those_of_the_deformed_anatomy(size):
    one = synthetic_cohort(2, size=size)[1]
    voxel_ml = np.prod(np.diag(one.affine)) / 1000
    for tissue, name in TISSUES.items():
        assert one.tissues[tissue].sum() * voxel_ml == pytest.approx(one.factors[name], rel=0.02), (
            name
        )


def test_one_persons_ventricles_grow_with_age_and_their_cortex_thins():
    cohort = synthetic_cohort(3, size=48)
    for index in range(3):
        lives = [
            cohort.counterfactual(index, age=age, lesion=False) for age in (20, 40, 60, 80, 95)
        ]
        ventricles = [one.factors["ventricle_ml"] for one in lives]
        assert np.all(np.diff(ventricles) > 0) and 2 < ventricles[-1] / ventricles[0] < 5
        for name in ("cortical_thickness", "grey_ml"):
            assert np.all(np.diff([one.factors[name] for one in lives]) < 0)
        for name in ("head_scale", "site", "shape_bend"):
            assert len({one.factors[name] for one in lives}) == 1
        # And so it looks: the middle of the brain and its surface darken.
        dark = [np.average(one.array, weights=one.tissues["ventricles"] + 1e-9) for one in lives]
        assert dark[-1] < dark[0]
        early, late = lives[0], lives[-1]
        assert late.array.sum() < early.array.sum()
        opened = late.tissues["ventricles"] - early.tissues["ventricles"] > 0.5
        assert opened.sum() > 40
        assert late.array[opened].mean() < 0.75 * early.array[opened].mean()


def test_a_thinner_cortex_is_a_smaller_one_by_that_factor():
    shape = deform(people(1)[0])
    whole = volumes(shape, 1.0)
    thin = volumes(shape, 0.8)
    assert thin["grey_ml"] / whole["grey_ml"] == pytest.approx(0.8, abs=0.02)
    assert thin["ventricle_ml"] == whole["ventricle_ml"] and thin["white_ml"] == whole["white_ml"]
    assert thin["csf_ml"] - whole["csf_ml"] == pytest.approx(
        whole["grey_ml"] - thin["grey_ml"], rel=0.05
    )


def test_age_sex_and_size_drive_the_cohort_as_they_say(table):
    def rank(one, other):
        return spearmanr(table[one], table[other]).statistic

    assert rank("age", "ventricle_ml") > 0.7
    assert rank("age", "cortical_thickness") < -0.7
    assert (table.grey_ml / table.intracranial_ml).corr(table.age) < -0.7
    assert rank("head_scale", "intracranial_ml") > 0.9
    sizes = table.groupby("sex").intracranial_ml.mean()
    assert 1.05 < sizes["M"] / sizes["F"] < 1.25
    assert abs(rank("age", "head_scale")) < 0.4 and abs(rank("age", "shape_taper")) < 0.4
    assert (
        table.ventricle_ml.between(5, 80).all() and table.intracranial_ml.between(1100, 2000).all()
    )


def test_the_population_is_as_asked(table):
    assert table.age.between(20, 85).all() and np.ptp(table.age) > 55
    assert set(table.site) == {"A", "B", "C"} and table.site.value_counts().min() >= 10
    assert 20 <= (table.sex == "F").sum() <= 40
    assert 10 <= table.lesion.sum() <= 28
    assert (table.lesion_ml > 0).equals(table.lesion)
    assert table.lesion_ml[table.lesion].between(0.3, 20).all()


def features(images):
    return np.array([blocks(image.array, 4).ravel() for image in images])


def test_a_linear_classifier_finds_the_site_of_a_scan_and_not_of_an_anatomy():
    cohort = synthetic_cohort(70, size=SMALL)
    sites = cohort.participants().site
    accuracy = {}
    for what, images in {
        "scan": list(cohort),
        "ideal": [cohort.ideal(i) for i in range(70)],
    }.items():
        found = features(images)
        found = (found - found.mean(axis=0)) / (found.std(axis=0) + 1e-9)
        model = LogisticRegression(max_iter=2000)
        accuracy[what] = cross_val_score(model, found, sites, cv=5).mean()
    assert accuracy["scan"] > 0.9
    assert accuracy["ideal"] < 0.65


def test_an_ideal_scan_knows_no_scanner():
    one, two = synthetic_cohort(3, size=SMALL, sites=1), synthetic_cohort(3, size=SMALL, sites=26)
    for index in range(3):
        np.testing.assert_array_equal(one.ideal(index).array, two.ideal(index).array)
        assert not np.array_equal(one[index].array, two[index].array)
        assert one.ideal(index).array.min() >= 0 and one.ideal(index).array.max() <= 1


def test_the_background_is_rician_noise_of_the_sites_size():
    for site in "ABC":
        machine = scanner(site)
        one = synthetic_cohort(1, size=48).counterfactual(0, site=site)
        air = one.array[:4] / machine.gain
        # Rayleigh: mean sigma sqrt(pi / 2), square 2 sigma^2; the gain varies by 3 % a day, and the field.
        assert air.mean() == pytest.approx(machine.noise * np.sqrt(np.pi / 2), rel=0.25)
        assert (air**2).mean() / air.mean() ** 2 == pytest.approx(4 / np.pi, rel=0.02)
        assert air.min() > 0


def test_any_few_sites_differ_in_every_property():
    machines = [scanner(site) for site in "ABCD"]
    for name in ("gain", "contrast", "blur", "noise"):
        values = sorted(getattr(machine, name) for machine in machines)
        assert np.diff(values).min() > 0.05 * np.ptp(values), name
    gap = [np.abs(a.bias - b.bias).max() for a in machines for b in machines if a is not b]
    assert min(gap) > 0.02


def test_with_and_without_the_lesion_scans_differ_near_the_mask_only():
    cohort = synthetic_cohort(4, size=64)
    for index in range(4):
        with_it = cohort.counterfactual(index, lesion=True)
        without = cohort.counterfactual(index, lesion=False)
        assert without.lesion is None and with_it.lesion.any()
        same(without, cohort[index])
        change = with_it.array - without.array
        near = ndimage.distance_transform_edt(~with_it.lesion, sampling=3.0) <= 15
        assert np.abs(change[~near]).max() <= 1e-3 * without.array.max()
        assert change[with_it.lesion].mean() < -0.1 * without.array[with_it.lesion].mean()


def test_a_lesion_is_where_the_factors_say_it_is():
    one = synthetic_cohort(2, size=96, lesions=1.0)[1]
    truth = one.factors
    middle = nibabel.affines.apply_affine(one.affine, np.argwhere(one.lesion)).mean(axis=0)
    np.testing.assert_allclose(middle, [truth[f"lesion_{axis}"] for axis in "xyz"], atol=4)
    assert one.lesion.sum() * 2**3 / 1000 == pytest.approx(truth["lesion_ml"], rel=0.2)
    tissue = one.tissues["grey"] + one.tissues["white"]
    assert tissue[one.lesion].mean() > 0.7


def test_a_lesion_stays_at_its_place_in_the_anatomy_whatever_the_age():
    cohort = synthetic_cohort(3, size=SMALL)
    for index in range(3):
        places = []
        for age in (20, 90):
            truth = cohort.counterfactual(index, age=age, lesion=True).factors
            person = draw_person(0, index, (20, 85), 2, Intervention(age=age))
            centre = tuple(np.array([truth[f"lesion_{axis}"]]) for axis in "xyz")
            places.append(deform(person).at(centre).ravel())
        assert np.abs(places[0] - places[1]).max() < 2


def test_a_lesion_has_a_mask_in_the_coarsest_grid_too():
    for one in synthetic_cohort(5, size=8, lesions=1.0):
        assert 1 <= one.lesion.sum() <= 2


def test_another_cause_leaves_what_it_does_not_cause():
    cohort = synthetic_cohort(2, size=SMALL)
    drawn = cohort[0]
    same(cohort.counterfactual(0), drawn)
    moved = cohort.counterfactual(0, site="Z")
    assert {
        k for k in drawn.factors if moved.factors[k] != drawn.factors[k] and k[:7] != "lesion_"
    } == {"site"}
    np.testing.assert_array_equal(moved.tissues["grey"], drawn.tissues["grey"])
    other = cohort.counterfactual(0, sex="F" if drawn.factors["sex"] == "M" else "M")
    assert other.factors["head_scale"] != drawn.factors["head_scale"]
    assert other.factors["age"] == drawn.factors["age"]


def test_written_files_hold_the_cohort(tmp_path):
    cohort = synthetic_cohort(3, size=(20, 24, 22), lesions=0.5, seed=0)
    folder = cohort.write(tmp_path / "new" / "cohort")
    for one in cohort:
        image = nibabel.load(folder / one.id / "anat" / f"{one.id}_T1w.nii.gz")
        np.testing.assert_allclose(image.get_fdata(), one.array, atol=one.array.max() / 6e4)
        np.testing.assert_allclose(image.affine, one.affine, rtol=1e-6)
        assert image.get_data_dtype() == np.int16 and image.header.get_xyzt_units()[0] == "mm"
        name = f"{one.id}_label-lesion_mask.nii.gz"
        path = folder / "derivatives" / "lesions" / one.id / "anat" / name
        assert path.exists() == (one.lesion is not None)
        if path.exists():
            mask = nibabel.load(path)
            assert mask.get_data_dtype() == np.uint8
            np.testing.assert_array_equal(np.asarray(mask.dataobj), one.lesion)
    written = pd.read_csv(folder / "participants.tsv", sep="\t", na_values="n/a")
    pd.testing.assert_frame_equal(written, cohort.participants())
    assert written.lesion.nunique() == 2  # both kinds are in this cohort
    assert json.loads((folder / "participants.json").read_text()).keys() == set(written.columns)
    for place in (folder, folder / "derivatives" / "lesions"):
        told = json.loads((place / "dataset_description.json").read_text())
        assert "Synthetic" in told["Name"] and told["GeneratedBy"][0]["Parameters"]["seed"] == 0


def test_writing_refuses_a_folder_with_something_in_it(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InvalidParameter) as caught:
        synthetic_cohort(1, size=8).write(tmp_path)
    expected = f"folder must be a folder that is new or empty, got folder={str(tmp_path)!r}."
    assert str(caught.value) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


BAD = [
    ({"n": 0}, "n must be an int of at least 1, got n=0."),
    ({"n": 2.5}, "n must be an int of at least 1, got n=2.5."),
    ({"n": True}, "n must be an int of at least 1, got n=True."),
    ({"seed": -1}, "seed must be an int of at least 0, got seed=-1."),
    ({"sites": 0}, "sites must be an int from 1 to 26, got sites=0."),
    ({"sites": 27}, "sites must be an int from 1 to 26, got sites=27."),
    ({"lesions": 1.5}, "lesions must be a probability, from 0 to 1, got lesions=1.5."),
    ({"lesions": float("nan")}, "lesions must be a probability, from 0 to 1, got lesions=nan."),
    ({"size": 7}, "size must be an int from 8 to 256, or three of them, (X, Y, Z), got size=7."),
    (
        {"size": (64, 64)},
        "size must be an int from 8 to 256, or three of them, (X, Y, Z), got size=(64, 64).",
    ),
    ({"age": (50, 40)}, "age must be (youngest, oldest) within 18 to 95 years, got age=(50, 40)."),
    ({"age": 40}, "age must be (youngest, oldest) within 18 to 95 years, got age=40."),
    ({"age": (5, 40)}, "age must be (youngest, oldest) within 18 to 95 years, got age=(5, 40)."),
]


@pytest.mark.parametrize(("arguments", "text"), BAD, ids=lambda value: str(value)[:20])
def test_impossible_arguments_are_refused_in_words(arguments, text):
    with pytest.raises(InvalidParameter) as caught:
        synthetic_cohort(**arguments)
    assert str(caught.value) == text


BAD_CAUSES = [
    ({"age": "old"}, "age must be from 18 to 95 years, or None, got age='old'."),
    ({"age": 12}, "age must be from 18 to 95 years, or None, got age=12."),
    ({"sex": "X"}, "sex must be 'F' or 'M', or None, got sex='X'."),
    ({"site": "AB"}, "site must be a letter from 'A' to 'Z', or None, got site='AB'."),
    ({"site": 1}, "site must be a letter from 'A' to 'Z', or None, got site=1."),
    ({"lesion": 0.3}, "lesion must be True or False, or None, got lesion=0.3."),
]


@pytest.mark.parametrize(("causes", "text"), BAD_CAUSES, ids=lambda value: str(value)[:20])
def test_impossible_causes_are_refused_in_words(causes, text):
    with pytest.raises(InvalidParameter) as caught:
        synthetic_cohort(1, size=8).counterfactual(0, **causes)
    assert str(caught.value) == text


def test_an_index_outside_is_refused():
    cohort = synthetic_cohort(3, size=8)
    for index in (3, -4):
        with pytest.raises(IndexError, match=f"index {index} of a cohort of 3. Give 0 to 2."):
            cohort[index]
    assert len(list(cohort)) == 3


def test_a_volume_costs_little_more_than_resampling_one():
    cohort = synthetic_cohort(3, size=64)
    volume = cohort[0].array
    places = np.indices(volume.shape) + 0.5
    ours = min(seconds(lambda: cohort[1]) for _ in range(3))
    theirs = min(seconds(lambda: ndimage.map_coordinates(volume, places)) for _ in range(3))
    assert ours < 10 * theirs  # cubic resampling of one volume; the ratio is about 2


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
