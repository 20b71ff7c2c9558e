"""Ways to iterate over scans, each run in a process and an environment of its own by scans.py.

All do the same work: turn each `.nii.gz` to RAS+, crop it about its centre, z-score it over all its
voxels, and give shuffled batches of 8 as float32 tensors (8, 1, *S). Imports happen in the functions:
an environment has only what its own contestant needs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from watching import held, worked

BATCH = 8


def nidl_neuro(paths: list[str], shape: int, cache: Path, processes: int) -> tuple[Any, Any]:
    """The store of nidl-neuro, read as `fit` reads it."""
    from nidl_core.data import as_data
    from nidl_neuro import scans

    workers = 1 if processes == 1 else None  # None: processes are started if that is worth it
    data = scans(paths, {"shape": shape, "mask": "none"}, cache=cache, workers=workers)
    return data, as_data(data, None).loader(BATCH, 0, shuffle=True)


def nidl_peer(paths: list[str], shape: int, cache: Path, processes: int) -> tuple[Any, Any]:
    """The data set class of the package `nidl`, with its own transforms. It has no cache."""
    import nibabel
    import numpy as np
    import pandas as pd
    from nidl.datasets import ImageDataFrameDataset
    from nidl.volume.transforms.preprocessing.intensity.z_normalization import ZNormalization
    from nidl.volume.transforms.preprocessing.spatial.crop_or_pad import CropOrPad

    def load(path: str) -> Any:
        image = nibabel.as_closest_canonical(nibabel.load(path))
        return image.get_fdata(dtype=np.float32)

    crop, scale = CropOrPad(shape), ZNormalization()
    data = ImageDataFrameDataset(
        "",
        pd.DataFrame({"image_path": paths}),
        image_loader=load,
        transform=lambda voxels: scale(crop(voxels))[None],
    )
    return data, _loader(data, processes)


def monai_cache(paths: list[str], shape: int, cache: Path, processes: int) -> tuple[Any, Any]:
    """MONAI's CacheDataset: everything in memory, prepared by threads before the first epoch."""
    from monai.data import CacheDataset

    files = [{"x": path} for path in paths]
    data = CacheDataset(files, _monai(shape), num_workers=processes, progress=False)
    return data, _loader(data, 1)  # as MONAI advises: what is in memory needs no processes


def monai_persistent(paths: list[str], shape: int, cache: Path, processes: int) -> tuple[Any, Any]:
    """MONAI's PersistentDataset: a file a scan, written when it is first asked for."""
    from monai.data import PersistentDataset

    data = PersistentDataset([{"x": path} for path in paths], _monai(shape), cache)
    return data, _loader(data, processes)


def _monai(shape: int) -> Any:
    from monai.transforms import (
        CenterSpatialCropd,
        Compose,
        EnsureChannelFirstd,
        LoadImaged,
        NormalizeIntensityd,
        Orientationd,
    )

    return Compose(
        [
            LoadImaged("x", reader="NibabelReader"),
            EnsureChannelFirstd("x"),
            Orientationd("x", axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
            CenterSpatialCropd("x", roi_size=(shape, shape, shape)),
            NormalizeIntensityd("x"),
        ]
    )


def _loader(data: Any, processes: int) -> Any:
    from torch.utils.data import DataLoader

    workers = processes if processes > 1 else 0
    return DataLoader(data, BATCH, True, num_workers=workers, persistent_workers=workers > 0)


def _voxels(batch: Any) -> Any:
    return batch["x"] if isinstance(batch, dict) else batch


def _epoch(loader: Any) -> None:
    for batch in loader:
        x = _voxels(batch)
        assert x.ndim == 5 and str(x.dtype) == "torch.float32"
        float(x.sum())


# How it is iterated over, and what an environment needs beside torch.
CONTESTANTS: dict[str, tuple[Any, list[str]]] = {
    "nidl-neuro": (nidl_neuro, []),
    "NIDL ImageDataFrameDataset": (nidl_peer, ["nidl"]),
    "MONAI CacheDataset": (monai_cache, ["monai", "nibabel"]),
    "MONAI PersistentDataset": (monai_persistent, ["monai", "nibabel"]),
}


def main() -> None:
    """Run one contestant; print what it took as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=CONTESTANTS)
    parser.add_argument("volumes", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("shape", type=int)
    parser.add_argument("processes", type=int)
    parser.add_argument("epochs", type=int)
    parser.add_argument("--values", type=Path, help="keep every eighth voxel here, to compare")
    given = parser.parse_args()

    import numpy as np
    import torch

    make, packages = CONTESTANTS[given.name]
    torch.manual_seed(0)
    paths = sorted(map(str, given.volumes.glob("*.nii.gz")))
    with tempfile.TemporaryDirectory() as elsewhere:  # two scans, for all that is imported late
        _epoch(make(paths[:2], given.shape, Path(elsewhere), 1)[1])
    base, seconds, cpu = held()["pss"], [], []
    start, before = time.perf_counter(), worked()
    data, loader = make(paths, given.shape, given.cache, given.processes)
    for _ in range(given.epochs):
        _epoch(loader)
        seconds.append(time.perf_counter() - start)
        cpu.append(worked() - before)
        start, before = time.perf_counter(), worked()
    if given.values:
        whole = (torch.as_tensor(_voxels(data[i])).numpy() for i in range(len(paths)))
        np.save(given.values, np.stack([voxels[:, ::8, ::8, ::8] for voxels in whole]))
    told = [*(packages or ["nidl-neuro", "nidl-core"]), "torch", "numpy", "nibabel"]
    versions = {name: version(name) for name in dict.fromkeys(told)}
    print(json.dumps({"seconds": seconds, "cpu": cpu, "base": base, "versions": versions}))


if __name__ == "__main__":
    main()
