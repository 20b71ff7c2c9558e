"""Tables: identifiers that join, numbers that come back exactly, files that are whole."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nidl_core.errors import DataError, InvalidParameter, ShapeError
from nidl_neuro import scans
from nidl_neuro.datasets import synthetic_cohort
from nidl_neuro.outputs import check_table, identifiers, read_table, write_latents, write_table

sys.path.insert(0, str(Path(__file__).parent))
from little import cohort

N = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    home = tmp_path_factory.mktemp("outputs")
    return scans(cohort(home / "cohort", N), cache=home / "cache")


def latents(dtype=np.float32):
    rng = np.random.default_rng(0)
    scale = 10.0 ** np.array([-30, 0, 4, 20])
    return (rng.normal(size=(N, 4)) * scale).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_latents_come_back_bit_for_bit(data, tmp_path, dtype):
    z = latents(dtype)
    table = read_table(write_latents(tmp_path / "z.tsv", data, z))
    assert list(table.columns) == ["id", "participant_id", "z0", "z1", "z2", "z3"]
    assert table["id"].tolist() == data.ids
    np.testing.assert_array_equal(table[["z0", "z1", "z2", "z3"]].to_numpy().astype(dtype), z)


def test_pandas_alone_reads_float32_latents_exactly(data, tmp_path):
    z = latents()
    table = pd.read_csv(write_latents(tmp_path / "z.tsv", data, z), sep="\t")
    np.testing.assert_array_equal(table.filter(like="z").to_numpy().astype(np.float32), z)


def test_the_table_joins_participants_tsv(data, tmp_path):
    table = pd.read_csv(write_latents(tmp_path / "z.tsv", data, latents()), sep="\t")
    source = data.cohort[0].path.parents[2] / "participants.tsv"
    joined = table.merge(pd.read_csv(source, sep="\t"), on="participant_id")
    assert len(joined) == N
    np.testing.assert_allclose(joined["age"], data.covariates["age"])


def test_the_posteriors_spread_has_columns_of_its_own(data, tmp_path):
    z = latents()
    table = read_table(write_latents(tmp_path / "z.tsv", data, z, np.abs(z)))
    np.testing.assert_array_equal(table["z2_sd"], np.abs(table["z2"]))
    meant = json.loads((tmp_path / "z.json").read_text())
    assert list(meant) == list(table.columns)
    assert meant["z1_sd"]["Description"] == "Posterior standard deviation of latent dimension 1"


def test_sessions_and_odd_identifiers_survive(tmp_path):
    for i, name in enumerate(["007", "NA"]):
        folder = tmp_path / "in" / f"sub-{name}" / "ses-01" / "anat"
        folder.mkdir(parents=True)
        image = synthetic_cohort(2, size=16)[i].image()
        image.to_filename(folder / f"sub-{name}_ses-01_T1w.nii.gz")
    data = scans(tmp_path / "in", cache=tmp_path / "cache")
    path = write_latents(tmp_path / "z.tsv", data, np.zeros((2, 1)))
    for table in (read_table(path), pd.read_csv(path, sep="\t")):
        assert table["participant_id"].tolist() == ["sub-007", "sub-NA"]
        assert table["session_id"].tolist() == ["ses-01", "ses-01"]
    table = pd.DataFrame({"id": ["007", "NA", "tab\tin it"], "z0": [1.0, np.nan, 2.0]})
    back = read_table(write_table(tmp_path / "t.tsv", table, {}))
    pd.testing.assert_frame_equal(back, table, check_dtype=False)
    assert "n/a" in (tmp_path / "t.tsv").read_text()


def test_scans_without_participants_have_an_id_alone(tmp_path):
    images = [scan.image() for scan in synthetic_cohort(2, size=16)]
    assert list(identifiers(scans(images, cache=tmp_path)).columns) == ["id"]


def test_nothing_is_replaced_unless_asked(data, tmp_path):
    path = write_latents(tmp_path / "z.tsv", data, latents())
    before = path.read_bytes()
    with pytest.raises(
        DataError, match=r"z.tsv and 1 more of 2 files are there already.*overwrite"
    ):
        write_latents(path, data, np.zeros((N, 1)))
    with pytest.raises(DataError, match="there already"):
        check_table(path)
    assert path.read_bytes() == before
    write_latents(path, data, np.zeros((N, 1)), overwrite=True)
    assert read_table(path)["z0"].tolist() == [0.0] * N


def test_a_table_that_fails_leaves_what_was_there(data, tmp_path, monkeypatch):
    path = write_latents(tmp_path / "z.tsv", data, latents())
    before = path.read_bytes(), path.with_suffix(".json").read_bytes()

    def full(self, part, **how):
        Path(part).write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(DataError, match=r"cannot write .*z.tsv: No space left on device"):
        write_latents(path, data, np.zeros((N, 1)), overwrite=True)
    assert (path.read_bytes(), path.with_suffix(".json").read_bytes()) == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["z.json", "z.tsv"]


def test_what_cannot_be_a_table_is_refused(data, tmp_path):
    with pytest.raises(InvalidParameter, match=r"path must be the path of a .tsv file, got"):
        write_latents(tmp_path / "z.csv", data, latents())
    with pytest.raises(
        ShapeError, match=r"latents of 3 scans have the shape \(3, L\), got \(2, 4\)"
    ):
        write_latents(tmp_path / "z.tsv", data, latents()[:2])
    with pytest.raises(ShapeError, match=r"sd must have the shape of latents"):
        write_latents(tmp_path / "z.tsv", data, latents(), latents()[:, :2])
    (tmp_path / "folder.tsv").mkdir()
    with pytest.raises(DataError, match=r"folder.tsv: it is a folder"):
        write_latents(tmp_path / "folder.tsv", data, latents(), overwrite=True)
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "none.tsv")
