"""Scans as data: fitted, transformed as they were fitted, masked, and put back onto their own grids."""

from __future__ import annotations

import zipfile

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, random_split

import nidl_core as nidl
import nidl_neuro
from nidl_core import hooks
from nidl_core.errors import DataError, InvalidParameter, ShapeError, UnknownParameter
from nidl_neuro import Preparation, ScanError, scans
from nidl_neuro.data import prepared_affine
from nidl_neuro.datasets import synthetic_cohort

N, SIZE = 6, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A BIDS-like folder of small synthetic scans."""
    folder = tmp_path_factory.mktemp("bids") / "cohort"
    synthetic_cohort(N, size=SIZE).write(folder)
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of stores, here."""
    monkeypatch.setenv("NIDL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def plugin():
    """The plugin's hooks, asked first."""
    import nidl_neuro.hooks

    with hooks.temporary(nidl_neuro.hooks):
        yield


def vae(**params):
    small = {"name": "mlp", "params": {"widths": [8]}}
    given = {"latent_dim": 2, "max_epochs": 1, "random_state": 0, "batch_size": 4, **params}
    try:
        return nidl.build("vae", encoder=small, decoder=small, likelihood="normal", **given)
    except nidl.NidlError as err:
        pytest.skip(f"other plugins are not installed: {err}")


def test_a_folder_is_found_prepared_and_kept(folder, cache):
    data = scans(folder)
    assert data.ids == [f"sub-{i:04}" for i in range(1, N + 1)]
    assert data.x.shape == (N, 1, SIZE, SIZE, SIZE)
    assert {"age", "sex", "site"} <= set(data.covariates.columns)
    assert list(data.covariates.index) == data.ids
    x = data.x[2]
    inside = data.store.mask(2)
    assert x.dtype == np.float32
    np.testing.assert_allclose([x[0][inside].mean(), x[0][inside].std()], [0, 1], atol=1e-5)
    assert data.store.made == N
    assert scans(folder).store.made == 0


def test_rows_are_indexed_as_numpy_would(folder, cache):
    data = scans(folder)
    whole = data.x[:]
    assert whole.shape == data.x.shape
    for index in (slice(1, 5, 2), np.array([3, 0, 3]), -1, 2):
        np.testing.assert_array_equal(data.x[index], whole[index])
    with pytest.raises(IndexError):
        data.x[N]
    assert torch.equal(data[1], torch.from_numpy(whole[1]))


def test_the_mask_is_what_most_scans_share(folder, cache):
    data = scans(folder, {"mask": "computed"})
    masks = np.stack([data.store.mask(row) for row in range(N)])
    np.testing.assert_array_equal(data.mask.numpy(), masks.sum(0) >= N / 2)
    assert scans(folder, {"mask": "none"}).mask is None


def test_masks_that_do_not_meet_are_refused(tmp_path):
    images = []
    for i in range(3):
        voxels = np.zeros((6, 6, 6))
        voxels[2 * i, :2, :3] = [[1, 2, 3], [4, 5, 6]]
        images.append(nibabel.Nifti1Image(voxels, np.eye(4)))
    with pytest.raises(DataError, match="no voxel lies in the masks of 50% of the 3 scans"):
        scans(images, cache=tmp_path)


def test_paths_are_fitted_and_transformed_like_any_data(folder, cache, plugin, tmp_path):
    model = vae().fit(f"{folder}/sub-*/anat/*.nii.gz")
    assert model.input_shape_ == (1, SIZE, SIZE, SIZE)
    assert model.data_mask is None  # no voxel of these scans is 0
    assert model.data_spec_["intensity"] == "zscore"
    latents = model.transform(folder)
    assert isinstance(latents, np.ndarray)
    assert latents.shape == (N, 2)
    model.save(tmp_path / "model.nidl")
    loaded = nidl.load(tmp_path / "model.nidl")
    assert loaded.data_spec_ == nidl.load(tmp_path / "model.nidl").data_spec_
    np.testing.assert_array_equal(loaded.transform(folder), latents)


def test_what_is_transformed_is_prepared_as_what_was_fitted(folder, cache, plugin, tmp_path):
    prep = {"shape": 12, "voxel_size": 14, "intensity": "percentiles", "mask": "computed"}
    model = vae().fit(scans(folder, prep))
    model.save(tmp_path / "model.nidl")
    loaded = nidl.load(tmp_path / "model.nidl")
    by_path = loaded.transform(f"{folder}/sub-0002/anat/*.nii.gz")
    np.testing.assert_array_equal(by_path, loaded.transform(scans(folder, prep).x[1:2]))


def test_some_of_the_scans_are_scans_with_the_mask_of_all(folder, cache):
    data = scans(folder, {"mask": "computed"})
    part = data[[4, 1]]
    assert part.ids == [data.ids[4], data.ids[1]]
    assert part.covariates.index.tolist() == part.ids
    np.testing.assert_array_equal(part.x[:], data.x[[4, 1]])
    assert part.record(0) == data.record(4)
    assert part.mask.equal(data.mask)
    np.testing.assert_array_equal(part.image(0, part.x[0]).affine, data.image(4, data.x[4]).affine)
    assert len(data.take([0, 2, 5]).take([-1])) == 1


def test_a_part_of_the_scans_is_fitted_as_all_of_them(folder, cache, plugin, tmp_path):
    data = scans(folder, {"mask": "computed"})
    train, val = random_split(data, [4, 2])
    model = vae().fit(train, val=DataLoader(val, batch_size=2))
    assert model.data_mask.equal(data.mask)
    assert model.data_spec_["mask"] == "computed"
    model.save(tmp_path / "model.nidl")
    assert nidl.load(tmp_path / "model.nidl").transform(folder).shape == (N, 2)


def test_scans_that_were_prepared_otherwise_are_refused_wherever_they_come_in(folder, cache):
    model = vae().fit(scans(folder))
    other = scans(folder, {"intensity": "none"})
    told = (
        "otherwise than those of the fit: intensity 'none' instead of 'zscore'. Hand in their paths"
    )
    for ask in (model.transform, model.score, lambda x: model.fit(scans(folder), val=x)):
        with pytest.raises(DataError, match=told):
            ask(other)


def test_a_decoder_that_was_handed_in_learns_from_scans(folder, cache, plugin):
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(SIZE**3, 4))
    shape = (1, SIZE, SIZE, SIZE)
    decoder = torch.nn.Sequential(torch.nn.Linear(2, SIZE**3), torch.nn.Unflatten(1, shape))
    given = vae().set_params(encoder=encoder, decoder=decoder, likelihood=None)
    given.set_params(encoder_out_dim=4).fit(scans(folder, {"mask": "computed"}))
    assert given.reconstruct(folder).shape == (N, *shape)


def test_what_a_model_gives_back_has_the_background_around_the_mask(folder, cache):
    data = scans(folder, {"mask": "computed"})
    made = np.zeros(data.shape, dtype=np.float32)  # as models leave it
    made[:, 0, data.mask.numpy()] = 2
    for row, image in enumerate(data.images(made)):
        record = data.record(row)
        values = image.get_fdata(dtype=np.float32)
        turned = nibabel.as_closest_canonical(image).get_fdata(dtype=np.float32)
        assert {*np.unique(turned[~data.mask.numpy()])} == {np.float32(record.background)}
        assert values.max() == pytest.approx(2 * record.scale + record.shift, rel=1e-6)
    kept = data.image(0, made[0], scanner_units=False).get_fdata()
    assert {*np.unique(kept)} == {0, 2}


def test_labels_come_back_as_labels(folder, cache):
    data = scans(folder, {"voxel_size": 8, "shape": 16})
    labels = np.random.default_rng(0).choice([0, 4, 900], size=data.shape).astype(np.int64)
    image = data.image(0, labels[0])
    assert {*np.unique(np.asarray(image.dataobj))} == {0, 4, 900}
    assert image.get_data_dtype() == np.int16


def test_a_table_leads_to_its_scans(folder, cache, plugin, tmp_path):
    paths = sorted(map(str, folder.glob("sub-*/anat/*.nii.gz")))
    table = pd.DataFrame({"path": paths, "age": range(N)})
    table.to_csv(tmp_path / "scans.csv", index=False)
    model = vae().fit(str(tmp_path / "scans.csv"))
    np.testing.assert_array_equal(model.transform(table), model.transform(paths))


def test_arrays_of_the_prepared_grid_go_back_onto_each_scans_own(folder, cache):
    data = scans(folder, {"shape": 20})
    for row, image in enumerate(data.images(data.x[:])):
        source = nibabel.load(data.cohort[row].path)
        np.testing.assert_array_equal(image.affine, source.affine)
        scale = np.abs(source.get_fdata()).max()
        np.testing.assert_allclose(image.get_fdata(), source.get_fdata(), atol=2e-6 * scale)
    with pytest.raises(ShapeError, match="one array for each of the 6 scans"):
        data.images(data.x[:2])
    values = data.x[0]
    maps = data.image(0, values, scanner_units=False)
    np.testing.assert_array_equal(maps.get_fdata(dtype=np.float32), values[0, 2:-2, 2:-2, 2:-2])


def test_what_was_done_is_told_a_line_a_scan(folder, cache):
    (first, *_) = scans(folder, {"shape": 20}).report()
    assert first.startswith(f"{folder}/sub-0001/anat/sub-0001_T1w.nii.gz: RAS, 12x12x12 mm kept, ")
    assert "padded 16x16x16 -> 20x20x20, z-scored in a mask of" in first


def test_a_bad_scan_is_told_or_left_out(folder, cache, tmp_path):
    paths = sorted(map(str, folder.glob("sub-*/anat/*.nii.gz")))[:3]
    bad = tmp_path / "sub-9999_T1w.nii.gz"
    bad.write_bytes(b"no image")
    with pytest.raises(ScanError, match="sub-9999_T1w.nii.gz"):
        scans([*paths, str(bad)])
    data = scans([*paths, str(bad)], skip_bad=True)
    assert len(data) == 3
    assert list(data.cohort.refused) == [str(bad)]


def test_scans_of_several_shapes_are_told_what_to_do(tmp_path):
    images = [nibabel.Nifti1Image(np.random.rand(n, 5, 5), np.eye(4)) for n in (5, 5, 6)]
    with pytest.raises(ScanError, match="give the preparation a target shape"):
        scans(images, cache=tmp_path)
    assert scans(images, Preparation(shape=5), cache=tmp_path).x.shape == (3, 1, 5, 5, 5)


@pytest.mark.parametrize(
    ("preparation", "error", "text"),
    [
        ({"voxelsize": 2}, UnknownParameter, "Did you mean 'voxel_size'"),
        ("2mm", InvalidParameter, "a mapping of its parameters or None"),
        ({"version": 99, "made_by": "nidl-neuro"}, DataError, "Upgrade it: pip install"),
    ],
)
def test_an_impossible_preparation_is_refused(folder, cache, preparation, error, text):
    with pytest.raises(error, match=text):
        scans(folder, preparation)
    assert not cache.exists()


def test_progress_is_told(folder, cache):
    told = []
    scans(folder, progress=lambda *what: told.append(what))
    stages = [stage for stage, *_ in told]
    assert set(stages) == {"reading", "preparing"}
    assert told[-1][1:3] == (N, N)
    assert told[-1][3] > N * SIZE**3 * 4


def test_a_bar_is_shown_where_it_is_asked_for(folder, cache, capsys):
    scans(folder, progress=True)
    err = capsys.readouterr().err
    assert "preparing scans: 100%" in err
    assert "MiB on disk" in err


def test_what_is_no_scan_is_left_to_others(plugin, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 2)))
    for other in (str(tmp_path / "x.npy"), [[1.0, 2.0]], {"a": 1}):
        assert nidl_neuro.hooks.nidl_as_dataset(other, None) is None


def test_a_mask_that_was_given_tells_nobody_where_it_lay(folder, cache, plugin, tmp_path):
    mask = np.zeros((SIZE,) * 3, dtype=bool)
    mask[4:9, 4:9, 4:9] = True
    paths = [tmp_path / "jane_doe" / "mask.npy", tmp_path / "elsewhere.npy"]
    paths[0].parent.mkdir()
    for path in paths:
        np.save(path, mask)
    first, second = (scans(folder, {"mask": path}) for path in paths)
    assert second.store.made == 0  # the same mask is the same preparation
    model = vae().fit(first)
    model.save(tmp_path / "model.nidl")
    with zipfile.ZipFile(tmp_path / "model.nidl") as file:
        assert not any(b"jane_doe" in file.read(name) for name in file.namelist())
    assert model.transform(second).shape == (N, 2)


def test_resampling_and_cut_masks_are_told(folder, cache, plugin, caplog):
    prep = {"voxel_size": 14, "shape": 8, "mask": "computed"}
    data = scans(folder, prep)
    assert data.notes[0] == "6 of 6 scans were resampled from 12x12x12 to 14x14x14 mm (linear)"
    assert data.notes[1].startswith(
        "the crop to 8x8x8 takes voxels off the masks of 6 of 6 scans, "
    )
    assert scans(folder).notes == ()
    model = vae().fit(data)
    model.transform(f"{folder}/sub-0002/anat/*.nii.gz")
    assert "1 of 1 scans were resampled from 12x12x12 to 14x14x14 mm (linear)" in caplog.messages


def test_scans_that_do_not_lie_on_each_other_are_told(tmp_path):
    voxels = np.random.default_rng(0).random((5, 5, 5))
    away = np.eye(4)
    away[:3, 3] = [0, 3, 4]
    images = [nibabel.Nifti1Image(voxels * i, affine) for i, affine in ((1, np.eye(4)), (2, away))]
    (note,) = scans(images, cache=tmp_path).notes
    assert note.startswith(
        "the prepared grids of 1 of 2 scans do not lie on that of the first, up to 5.0"
    )
    here = nibabel.Nifti1Image(voxels * 3, np.eye(4))
    assert not scans([images[0], here], cache=tmp_path).notes


def test_scans_off_the_models_grid_are_told(folder, cache, plugin, tmp_path, caplog):
    model = vae().fit(folder)
    assert not caplog.messages or "do not lie on" not in caplog.text
    source = nibabel.load(next(folder.glob("sub-0001/anat/*.nii.gz")))
    moved = source.affine.copy()
    moved[:3, 3] += 40
    nibabel.save(nibabel.Nifti1Image(source.get_fdata(), moved), tmp_path / "moved.nii.gz")
    model.transform(str(tmp_path / "moved.nii.gz"))
    told = "1 of 1 scans do not lie on that of the scans that the model has learnt, up to 69.3 mm apart"
    assert told in caplog.text
    assert "moved.nii.gz" in caplog.text


def test_scans_say_what_they_are(folder, cache):
    data = scans(folder, {"mask": "computed"})
    inside = int(data.mask.sum())
    assert repr(data).startswith(
        f"<6 prepared scans of 16x16x16 voxels, {inside} of them in the mask; covariates: "
    )


def test_a_model_knows_the_grid_of_its_scans(folder, cache, plugin, tmp_path):
    model = vae().fit(folder)
    model.save(tmp_path / "model.nidl")
    affine = prepared_affine(nidl.load(tmp_path / "model.nidl"))
    first = nibabel.load(scans(folder).cohort[0].path)
    np.testing.assert_array_equal(affine, first.affine)
    with pytest.raises(DataError, match="the model was not fitted on scans"):
        prepared_affine(vae().fit(np.ones((4, 3)) * np.arange(3)))
