"""The kit's own tests: components that are sound, and others with one fault each.

Components stand in modules of their own, which other processes can import: this folder is on the
path before the first of those is started.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nidl_core
from nidl_core.testing.processes import spawned

sys.path.insert(0, str(Path(__file__).parent))

POINTS = """
[nidl.encoders]
linear = good_components:LinearEncoder
[nidl.losses]
elbo = good_components:Elbo
[nidl.estimators]
auto_encoder = good_estimator:AutoEncoder
plain_statistic = bad_estimators:PlainStatistic
"""


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kit is tested under its first backend, whatever a run of the whole suite asks for."""
    monkeypatch.delenv("NIDL_TEST_BACKEND", raising=False)
    monkeypatch.delenv("NIDL_TEST_DEVICE", raising=False)


@pytest.fixture(scope="module")
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An installed distribution, `nidl-loopback`: its name. Here, and in the spawned worker."""
    import elsewhere

    site = tmp_path_factory.mktemp("site")
    info = site / "nidl_loopback-1.0.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text(
        "Metadata-Version: 2.1\nName: nidl-loopback\nVersion: 1.0\n"
    )
    info.joinpath("entry_points.txt").write_text(POINTS)
    sys.path.insert(0, str(site))
    nidl_core.encoders.refresh()
    spawned(elsewhere.add_to_path, str(site))
    yield "nidl-loopback"
    spawned(elsewhere.remove_from_path, str(site))
    sys.path.remove(str(site))
    nidl_core.encoders.refresh()
