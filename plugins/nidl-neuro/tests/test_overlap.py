"""Scans that are called held out, and are not: by their voxels, by their participants, in the report."""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nidl_core.errors import DataError
from nidl_neuro import scans
from nidl_neuro.datasets import synthetic_cohort
from nidl_neuro.overlap import contents, people, same_people, same_scans
from nidl_neuro.report import write_report
from nidl_neuro.report.facts import gather

sys.path.insert(0, str(Path(__file__).parent))
from little import PREPARATION, vae

PEOPLE = synthetic_cohort(30, size=16)
TABLE = PEOPLE.participants()


def table_of(folder, rows, name):
    """A table of some of the people, with files that are called by `name`."""
    paths = []
    for place, row in enumerate(rows):
        paths.append(folder / f"{name(place)}_T1w.nii.gz")
        PEOPLE[row].image().to_filename(paths[-1])
    columns = {"path": list(map(str, paths)), "age": TABLE["age"].iloc[list(rows)].to_list()}
    return pd.DataFrame({**columns, "sex": TABLE["sex"].iloc[list(rows)].to_list()})


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("overlap")


@pytest.fixture(scope="module")
def data(home):
    """16 scans of sub-00 to sub-07, two sessions each."""
    table = table_of(home, range(16), lambda i: f"sub-{i // 2:02}_ses-{i % 2}")
    return scans(table, PREPARATION, cache=home / "cache")


@pytest.fixture(scope="module")
def val(home):
    """3 scans of the data under other names, 2 more of sub-07 and 9 of others."""
    (home / "val").mkdir()
    rows = [2, 3, 15, *range(16, 27)]
    names = [*(f"sub-x{i}" for i in range(3)), "sub-07_ses-2", "sub-07_ses-3"]
    names += [f"sub-{i}" for i in range(20, 29)]
    table = table_of(home / "val", rows, names.__getitem__)
    return scans(table, PREPARATION, cache=home / "other cache")


@pytest.fixture(scope="module")
def model(data):
    return vae(max_epochs=3).fit(data)


def text_of(path):
    """What a person reads on a page."""
    text = re.sub(r"<(script|style).*?</\1>", "", path.read_text(encoding="utf-8"), flags=re.S)
    return re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]+>", " ", text)))


def test_equal_voxels_are_one_scan_in_whatever_store_and_by_whatever_name(data, val):
    assert data.store.folder != val.store.folder
    np.testing.assert_array_equal(same_scans(data, val), [True] * 3 + [False] * 11)
    assert contents(val, [2, 0]) == contents(data, [15, 2])
    assert len(set(contents(data))) == 16


def test_people_are_known_by_their_sub_alone(data, val, home):
    np.testing.assert_array_equal(same_people(data, val), [False] * 3 + [True] * 2 + [False] * 9)
    assert people(data) == [f"{i // 2:02}" for i in range(16)]
    images = [PEOPLE[row].image() for row in (28, 29)]
    nameless = scans(images, PREPARATION, cache=home / "cache")
    assert people(nameless) == nameless.ids
    assert not same_people(nameless, nameless).any()  # two lists have an image-0 each


def test_held_out_scans_that_are_not_count_for_nothing(model, data, val):
    facts = gather(model, data, val)
    kept = val.take(range(3, 14))
    assert facts.val.data.ids == kept.ids
    assert facts.val.bound == model.score(kept)
    assert facts.apart.same == tuple(val.ids[:3])
    assert len(facts.val.errors) == 11


def test_probes_are_not_scored_on_people_they_learnt_from(model, home, val):
    (home / "main").mkdir(exist_ok=True)
    table = table_of(
        home / "main", range(11), lambda i: f"sub-{i - 3:02}" if i > 2 else f"sub-a{i}"
    )
    data = scans(table, PREPARATION, cache=home / "cache")
    probes = {probe.name: probe for probe in gather(model, data, val).probing.probes}
    assert probes["age"].scans == 14 - 2 - 2  # two scans are the data's own, two of sub-07


def test_the_page_says_which_held_out_scans_are_not(model, data, val, home):
    text = text_of(write_report(model, data, home / "page.html", val=val))
    assert "3 of 14 held-out scans are also among the other scans" in text
    assert "2 of 11 held-out scans are of participants who are also among the other scans" in text
    assert "16 + 11 held out" in text
    others = val.take(range(5, 14))
    text = text_of(write_report(model, data, home / "page.html", val=others))
    assert "also among" not in text


def test_data_as_their_own_held_out_scans_are_refused(model, data, tmp_path):
    with pytest.raises(DataError, match="all 16 held-out scans are also among the 16 scans"):
        write_report(model, data, tmp_path / "page.html", val=data)
    assert list(tmp_path.iterdir()) == []


def test_sessions_of_a_person_are_probed_in_one_fold(model, home):
    (home / "twice").mkdir()
    table = table_of(home / "twice", range(24), lambda i: f"sub-{i // 2:02}_ses-{i % 2}")
    data = scans(table, PREPARATION, cache=home / "cache")
    probing = gather(model, data).probing
    assert (probing.scans, probing.people) == (24, 12)
    text = text_of(write_report(model, data, home / "page.html"))
    assert "These scans are of 12 people, and all of a person's are in one fold" in text
