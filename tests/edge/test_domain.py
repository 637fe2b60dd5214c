"""Out of domain: the shipped model knows its example, and not the same scene in wrong units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import Affine

from mmedge.bundle import Bundle, open_bundle
from mmedge.edge import domain as domain_module
from mmedge.edge.domain import LIMIT, Domain, fit_domain, squares_of, strange_shares, warnings_of
from mmedge.geo_io.arrays import SensorArray, scene_from_arrays
from mmedge.geo_io.gather import SceneOptions
from mmedge.geo_io.scene import open_scene
from mmedge.grid import Window


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle()


def shares(chile: Path, bundle: Bundle, **options: object) -> dict[str, float]:
    sources = {m: [chile / f"{m}.tif"] for m in ("optical", "sar", "elevation")}
    with open_scene(None, bundle.modalities, SceneOptions(sources=sources, **options)) as scene:  # type: ignore[arg-type]
        return strange_shares(scene, bundle)


def test_the_example_is_in_domain(chile: Path, bundle: Bundle) -> None:
    found = shares(chile, bundle)
    assert set(found) == {"optical", "sar", "elevation"}
    assert max(found.values()) < LIMIT
    assert warnings_of(found, bundle.name) == []


def test_the_offset_that_was_left_in_is_out_of_domain(chile: Path, bundle: Bundle) -> None:
    found = shares(chile, bundle, scale={"optical": (1e-4, 0.0)})
    assert found["optical"] > 0.8
    assert found["sar"] < LIMIT
    (text,) = warnings_of(found, bundle.name)
    assert text.startswith("`optical` is out of domain")


def test_the_figure_is_that_of_the_region(bundle: Bundle) -> None:
    """A scene whose eastern half is 10 dB too low."""
    point = Domain.parse(bundle.item["properties"]["mmedge:domain"]["sar"])
    level = (point.points[0] * point.scale + point.centre).astype(np.float32)
    data = np.broadcast_to(level[:, None, None], (2, 200, 400)).copy()
    data[:, :, 200:] -= 10
    arrays = {"sar": SensorArray(data=data, bands=["VV", "VH"])}
    where = {"transform": Affine(10, 0, 700_080, 0, -10, 5_700_000), "crs": "EPSG:32718"}
    scene = scene_from_arrays(arrays, bundle.modalities, **where)
    assert strange_shares(scene, bundle, Window(0, 0, 200, 150)) == {"sar": 0.0}
    assert strange_shares(scene, bundle, Window(0, 260, 200, 100)) == {"sar": 1.0}
    assert 0.2 < strange_shares(scene, bundle)["sar"] < 0.8


def test_one_read_or_many_say_the_same(chile: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_scene(chile / "scene.tif", bundle.modalities) as scene:
        at_once = strange_shares(scene, bundle)
        monkeypatch.setattr(domain_module, "ONE_READ_PX", 0)
        assert strange_shares(scene, bundle) == at_once


def test_a_bundle_that_says_nothing_warns_of_nothing(chile: Path, small: Path) -> None:
    assert shares(chile, open_bundle(small)) == {}


def test_what_is_invalid_does_not_count() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 24, 20)).astype(np.float32)
    valid = rng.random((2, 1, 24, 20)) < 0.7
    valid[0, 0, :8, :8] = False
    expected = [
        [x[b, c, r : r + 8, k : k + 8][valid[b, 0, r : r + 8, k : k + 8]].mean() for c in range(3)]
        for b in range(2)
        for r in range(0, 24, 8)
        for k in range(0, 16, 8)
        if valid[b, 0, r : r + 8, k : k + 8].mean() >= 0.5
    ]
    poisoned = np.where(valid, x, np.nan).astype(np.float32)
    np.testing.assert_allclose(squares_of(poisoned, valid), expected, rtol=1e-5)


def test_points_stand_for_what_was_seen() -> None:
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    clusters = np.array([[0.0, 0.0], [10.0, 0.0]])  # a normal distribution would hold what lies between them
    seen = clusters[rng.integers(2, size=2000)] + rng.normal(0, 0.3, (2000, 2))
    domain = Domain.parse(fit_domain(seen).document())
    assert domain.strange(seen).mean() == pytest.approx(0.01, abs=0.005)
    assert domain.strange(np.array([[5.0, 0.0], [0.0, 4.0]])).all()
    assert not domain.strange(clusters).any()
