"""Memory that a run may take, sizes that are tuned, tiles that are skipped: none of it changes a map."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from small_bundle import write_bundle

from mmedge.bundle import open_bundle
from mmedge.cli import options
from mmedge.edge import tune
from mmedge.edge.infer import infer, open_engines
from mmedge.edge.predict import Plan, predict
from mmedge.edge.request import MAP_CACHE_BYTES, Request, block_cache, cut_up
from mmedge.edge.runtime.open import open_runtime
from mmedge.edge.runtime.session import Engines, GraphKey, input_shapes
from mmedge.errors import BundleError, UsageError
from mmedge.geo_io.rasters.header import GDAL_CACHE_BYTES
from mmedge.geo_io.scene import open_scene
from mmedge.geo_io.tiling import Lattice
from mmedge.grid import Grid, Window

MIB = 1 << 20
RUN = """
import sys
from mmedge.edge.infer import infer
from mmedge.edge.memory import peak_mib
scene, out, model, limit = sys.argv[1:]
infer(scene, out, model=model, threads=2, probs=True, max_memory=int(limit) or None, backend="openvino")
print(peak_mib())
"""


@pytest.fixture(scope="module")
def large(chile: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, mirrored to 1,600 x 1,200 pixels, in tiles of 256."""
    path = tmp_path_factory.mktemp("large") / "scene.tif"
    with rasterio.open(chile / "scene.tif") as src:
        data = np.pad(src.read(), ((0, 0), (0, 1600 - 224), (0, 1200 - 224)), mode="symmetric")
        with rasterio.open(path, "w", **{**src.profile, "height": 1600, "width": 1200, "predictor": 3}) as out:
            out.write(data)
            out.descriptions = src.descriptions
    return path


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the small network whose windows may be resized up to 512 pixels."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "wide", window_px=512, resizable=True)


def peak_mib(scene: Path, out: Path, model: Path, limit: int) -> float:
    command = [sys.executable, "-c", RUN, *map(str, (scene, out, model, limit))]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_a_run_stays_within_its_memory_and_gives_the_same_map(large: Path, wide: Path, tmp_path: Path) -> None:
    free = peak_mib(large, tmp_path / "free.tif", wide, 0)
    with pytest.raises(subprocess.CalledProcessError) as caught:
        peak_mib(large, tmp_path / "small.tif", wide, 1)
    (least,) = re.findall(r"take about (\d+) MiB", caught.value.stderr)
    limit = int(least) * 21 // 20  # a process differs from the next by some MiB
    bound = peak_mib(large, tmp_path / "bound.tif", wide, limit * MIB)
    assert bound <= limit
    assert bound < free
    for kind in ("", "_confidence", "_sensors", "_probs"):
        assert (tmp_path / f"bound{kind}.tif").read_bytes() == (tmp_path / f"free{kind}.tif").read_bytes()


@pytest.mark.parametrize("frugal", [False, True])
def test_graphs_for_other_scenes_are_kept_while_they_are_small(wide: Path, frugal: bool) -> None:
    runtime, _ = open_runtime("openvino", precision="fp32", threads=1, frugal=frugal)
    engines = Engines(open_bundle(wide), runtime)

    def fitted(side: int) -> Engines:
        return engines.fitted(Grid(side, side, (10, 0, 0, 0, -10, 0), "EPSG:32632"))

    first, second = fitted(100), fitted(250)
    assert first is not second
    assert fitted(240) is second  # nearly the same size: the same window
    assert (fitted(100) is first) is not frugal
    for side in (150, 200, 310, 350, 400):
        fitted(side)
    assert fitted(400) is fitted(390)
    assert fitted(100) is not first  # too much since then


def test_a_resizable_window_of_relief_is_refused(small: Path, tmp_path: Path) -> None:
    """Relief depends on the whole window: with another window the map would be another."""
    item = json.loads((small / "model.json").read_text())
    item["properties"]["mmedge:tiling"]["resizable"] = True
    (tmp_path / "model.json").write_text(json.dumps(item))
    with pytest.raises(BundleError, match="windows of one size"):
        open_bundle(tmp_path)


def test_too_little_memory_is_an_error_that_says_how_much_is_needed(chile: Path, small: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not fit into 50 MiB") as caught:
        infer(chile / "scene.tif", tmp_path / "map.tif", model=small, max_memory=50 * MIB)
    assert caught.value.hint.startswith("--max-memory ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("text", "size"), [("700M", 700 * MIB), ("1.5G", 1536 * MIB), ("64MiB", 64 * MIB), ("9", 9)])
def test_sizes_are_written_as_people_write_them(text: str, size: int) -> None:
    assert options.size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-3M", "0G", "3T"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no size"):
        options.size(text)


def test_only_so_many_graphs_stay_compiled(small: Path) -> None:
    bundle = open_bundle(small)
    engines = open_engines(Request(scene=None, backend="openvino"), bundle).keeping(2)
    keys = GraphKey.every(bundle)[:3]
    first, second, third = (engines.session(key) for key in keys)
    assert engines.session(keys[2]) is third
    assert engines.session(keys[1]) is second
    assert engines.session(keys[0]) is not first


@pytest.mark.parametrize("model", ["small", "wide"])
def test_tuning_is_remembered_and_changes_no_byte(
    model: str, chile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("MMEDGE_TUNING", str(tmp_path / "tuning"))
    monkeypatch.setattr(tune, "SECONDS", 0.01)
    bundle = request.getfixturevalue(model)
    plain = infer(chile / "scene.tif", tmp_path / "plain.tif", model=bundle, threads=1)
    wishes: dict[str, Any] = {"model": bundle, "threads": 1, "tune": True}
    tuned = infer(chile / "scene.tif", tmp_path / "tuned.tif", **wishes)
    assert plain.outputs.map.read_bytes() == tuned.outputs.map.read_bytes()
    (kept,) = (tmp_path / "tuning").iterdir()
    facts = json.loads(kept.read_text())
    assert facts["bundle_sha256"] == open_bundle(bundle).sha256
    assert {"cpu", "threads", "precision", "backend"} <= facts.keys()
    assert (facts["window_px"] is None) == (model == "small")
    written = kept.stat().st_mtime_ns
    infer(chile / "scene.tif", tmp_path / "again.tif", **wishes)
    assert kept.stat().st_mtime_ns == written
    for i, damaged in enumerate(("half of it", "[]", json.dumps({"schema": tune.SCHEMA}))):
        kept.write_text(damaged)
        infer(chile / "scene.tif", tmp_path / f"mended{i}.tif", **wishes)
        assert json.loads(kept.read_text())["cpu"]


class Counting:
    """Sessions that count the windows they are given."""

    def __init__(self, engines: Engines) -> None:
        self.windows, self._engines = 0, engines
        self.bundle, self.batch = engines.bundle, 1

    def session(self, key: GraphKey) -> Any:
        session = self._engines.session(key)

        class Counted:
            def run(_, feeds: Any) -> Any:
                self.windows += 1
                return session.run(feeds)

        return Counted()


def test_windows_without_a_pixel_to_map_are_not_computed(small: Path, tmp_path: Path) -> None:
    """Windows answer for 60 pixels: of 5 x 5 those are computed that answer for a valid pixel, and of those the ones
    in an area of interest; a valid pixel in a window's halo alone is no reason.
    """
    path, side = tmp_path / "scene.tif", 300
    data = np.full((4, side, side), np.nan, np.float32)
    data[:, 120:241, 0:60] = 0.2  # rows of windows 2 and 3, and the first pixel of row 4
    profile = {"driver": "GTiff", "count": 4, "height": side, "width": side, "dtype": "float32", "nodata": np.nan}
    with rasterio.open(path, "w", **profile, crs="EPSG:32632", transform=from_origin(0, 6000, 10, 10)) as out:
        out.write(data)
        out.descriptions = [f"optical:{band}" for band in ("B02", "B03", "B04", "B08")]
    bundle = open_bundle(small)
    engines = Engines(bundle, open_engines(Request(scene=None, backend="openvino"), bundle).runtime, batch=1)
    with open_scene(path, bundle.modalities) as scene:
        counting = Counting(engines)
        tiles = list(predict(scene, counting, scene.grid.window, Plan(threads=1, cells=2)))  # type: ignore[arg-type]
        assert counting.windows == 3
        assert sum(int((tile.classes != bundle.nodata).sum()) for tile in tiles) == 121 * 60
        counting = Counting(engines)

        def keep(window: Window) -> Any:
            rows = np.arange(window.row, window.row + window.height)[:, None] < 180
            return np.broadcast_to(rows, window.shape)

        list(predict(scene, counting, scene.grid.window, Plan(threads=1, cells=2), keep=keep))  # type: ignore[arg-type]
        assert counting.windows == 1


def test_two_threads_share_a_large_window_where_memory_is_short(wide: Path) -> None:
    """One stream instead of two, and the same logits."""
    bundle = open_bundle(wide)
    key, found = GraphKey.every(bundle)[-1], []
    rng = np.random.default_rng(0)
    feeds = {
        name: np.ones(shape, bool) if name.endswith("_valid") else rng.random(shape, np.float32)
        for name, shape in input_shapes(bundle, key, 1).items()
    }
    for frugal, streams in ((False, 2), (True, 1)):
        runtime, _ = open_runtime("openvino", precision="fp32", threads=2, frugal=frugal)
        assert runtime.traits.streams(bundle.tiling.window_px**2, 2) == streams
        found.append(runtime.load(bundle, key, batch=1).run(feeds).copy())
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("block", [64, 256])
@pytest.mark.parametrize(("cells", "tall"), [(1, 3), (4, 2)])
def test_gdal_s_cache_holds_every_block_under_a_column_of_tiles(
    wide: Path, tmp_path: Path, block: int, cells: int, tall: int
) -> None:
    path, bundle = tmp_path / "scene.tif", open_bundle(wide)
    profile = {"driver": "GTiff", "dtype": "float32", "count": 2, "width": 1900, "height": 1700, "crs": "EPSG:32718"}
    blocks = {"tiled": True, "blockxsize": block, "blockysize": block, "transform": from_origin(0, 0, 10, 10)}
    with rasterio.open(path, "w", **profile, **blocks) as out:
        out.write(np.full((2, 1700, 1900), -12, np.float32))
        out.descriptions = ["VV", "VH"]
    runtime, _ = open_runtime("openvino", precision="fp32", threads=1)
    with open_scene(path, bundle.modalities) as scene:
        engines = Engines(bundle, runtime).resized(window_px=96, grid=scene.grid)
        lattice = Lattice.of(engines.bundle.tiling, scene.grid)
        columns: dict[int, set[tuple[int, int]]] = {}
        for i, tile in enumerate(lattice.tiles(scene.grid.window, cells, tall=tall)):
            read = tile.read.intersect(scene.grid.window)
            rows, cols = (
                range(first // block, (first + length - 1) // block + 1)
                for first, length in ((read.row, read.height), (read.col, read.width))
            )
            columns.setdefault(i // tall, set()).update((row, col) for row in rows for col in cols)
        most = max(map(len, columns.values())) * block**2 * 2 * 4
        assert most <= block_cache(cells, tall, engines, scene) - MAP_CACHE_BYTES


def test_gdal_s_cache_holds_the_strips_under_a_row_of_tiles(large: Path, wide: Path, tmp_path: Path) -> None:
    path, bundle = tmp_path / "strips.tif", open_bundle(wide)
    with rasterio.open(large) as src:
        profile = {**src.profile, "tiled": False, "blockysize": 16}
        del profile["blockxsize"]
        with rasterio.open(path, "w", **profile) as out:
            out.write(src.read())
            out.descriptions = src.descriptions
    runtime, _ = open_runtime("openvino", precision="fp32", threads=1)
    with open_scene(path, bundle.modalities) as scene:
        engines = Engines(bundle, runtime).fitted(scene.grid)
        plan = cut_up(Request(scene=path, model=str(wide)), engines, scene.grid.window, scene)
        read = plan.cells * engines.bundle.tiling.stride_px + 2 * engines.bundle.tiling.halo_px
        assert plan.tall == 1
        strips = sum(source.info.strip_bytes for source in scene.sources.values())
        assert strips > 0
        assert plan.cache_bytes >= GDAL_CACHE_BYTES + read * strips
