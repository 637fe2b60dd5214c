"""The map writer on real files: what is read back, what is left behind, and that bytes depend on pixels alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rio_cogeo.cogeo import cog_validate

from mmedge.bundle import LandClass
from mmedge.errors import OutputError
from mmedge.files import part_of
from mmedge.geo_io.maps.mapwriter import MapCounts, MapWriter
from mmedge.geo_io.maps.outputs import Outputs, plan_outputs, raw_part_of, refuse_existing
from mmedge.geo_io.maps.publication import finish_killed
from mmedge.grid import Grid, Window

LEGEND = (
    LandClass(1, "water", (0, 100, 200)),
    LandClass(2, "trees", (0, 100, 0)),
    LandClass(7, "snow", (240, 240, 240)),
)
ORDER = ("optical", "sar", "elevation")
TAGS = {"MMEDGE_VERSION": "0.1.0", "MMEDGE_AVAILABLE": "optical+sar"}
Pixels = dict[str, npt.NDArray[np.uint8]]


def grid_of(rows: int, cols: int) -> Grid:
    return Grid(rows, cols, (10.0, 0.0, 300000.0, 0.0, -10.0, 6000000.0), CRS.from_epsg(32719).to_wkt())


def pixels_of(grid: Grid, seed: int = 0) -> Pixels:
    """A random map with nodata, consistent over its products."""
    rng = np.random.default_rng(seed)
    hole = rng.random(grid.shape) < 0.3
    classes = rng.choice(np.array([1, 2, 7], np.uint8), grid.shape)
    confidence = rng.integers(0, 101, grid.shape, dtype=np.uint8)
    sensors = rng.integers(1, 8, grid.shape, dtype=np.uint8)
    probs = rng.integers(0, 251, (3, *grid.shape), dtype=np.uint8)
    classes[hole], confidence[hole], sensors[hole], probs[:, hole] = 255, 255, 0, 255
    return {"map": classes, "confidence": confidence, "sensors": sensors, "probs": probs}


def cut(pixels: Pixels, window: Window) -> list[npt.NDArray[np.uint8]]:
    where = slice(window.row, window.row + window.height), slice(window.col, window.col + window.width)
    return [pixels[key][(..., *where)] for key in ("map", "confidence", "sensors", "probs")]


def windows(grid: Grid, rows: list[int], cols: list[int]) -> list[Window]:
    """The windows between sorted cuts: they cover the grid exactly once."""
    y, x = [0, *rows, grid.rows], [0, *cols, grid.cols]
    return [Window(top, left, bottom - top, right - left) for top, bottom in pairwise(y) for left, right in pairwise(x)]


def write_map(
    folder: Path, grid: Grid, pixels: Pixels, parts: list[Window], *, overwrite: bool = False
) -> tuple[Outputs, MapCounts]:
    outputs = plan_outputs(folder / "scene_map.tif", probs=True, json=False, png=False)
    with MapWriter(grid, outputs, legend=LEGEND, order=ORDER, tags=TAGS, overwrite=overwrite) as writer:
        for window in parts:
            writer.write(window, *cut(pixels, window))
        counts = writer.finish()
    return outputs, counts


def read(path: Path | None, *, level: int | None = None) -> npt.NDArray[np.uint8]:
    assert path is not None
    options = {} if level is None else {"overview_level": level}
    with rasterio.open(path, **options) as dataset:
        found: npt.NDArray[np.uint8] = dataset.read()
    return found


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("shape", [(1, 1), (37, 1000), (513, 700), (1, 1500)])
def test_products_read_back_and_are_cogs(tmp_path: Path, shape: tuple[int, int]) -> None:
    grid = grid_of(*shape)
    pixels = pixels_of(grid)
    outputs, counts = write_map(tmp_path, grid, pixels, [grid.window])
    for path, key in zip(outputs.paths, ("confidence", "sensors", "probs", "map"), strict=True):
        np.testing.assert_array_equal(read(path).reshape(pixels[key].shape), pixels[key])
        assert cog_validate(path, strict=True) == (True, [], [])
        with rasterio.open(path) as dataset:
            assert dataset.nodata == (0 if key == "sensors" else 255)
            assert tuple(dataset.transform)[:6] == grid.transform
            assert dataset.crs.to_epsg() == 32719
            assert dataset.tags()["MMEDGE_AVAILABLE"] == "optical+sar"
    assert counts.written == counts.pixels == grid.rows * grid.cols
    assert counts.classes == {
        int(v): int(n) for v, n in zip(*np.unique(pixels["map"], return_counts=True), strict=True) if v != 255
    }
    assert counts.sensors == {
        int(v): int(n) for v, n in zip(*np.unique(pixels["sensors"], return_counts=True), strict=True) if v
    }
    assert counts.nodata == (pixels["map"] == 255).sum()
    assert len(names(tmp_path)) == 4  # and no side-car


def test_dressing_of_each_product(tmp_path: Path) -> None:
    grid = grid_of(20, 30)
    outputs, _ = write_map(tmp_path, grid, pixels_of(grid), [grid.window])
    with rasterio.open(outputs.map) as dataset:
        assert dataset.colormap(1)[7] == (240, 240, 240, 255)
        assert dataset.colormap(1)[255][3] == 0
        assert dataset.descriptions == ("class",)
        assert {key: dataset.tags()[key] for key in ("CLASS_1", "CLASS_2", "CLASS_7")} == {
            "CLASS_1": "water",
            "CLASS_2": "trees",
            "CLASS_7": "snow",
        }
    with rasterio.open(outputs.confidence) as dataset:
        assert dataset.descriptions == ("confidence [percent]",)
    with rasterio.open(outputs.sensors) as dataset:
        assert dataset.descriptions == ("sensors",)
        assert [dataset.tags()[f"SENSOR_BIT_{i}"] for i in range(3)] == list(ORDER)
    assert outputs.probs is not None
    with rasterio.open(outputs.probs) as dataset:
        assert dataset.descriptions == ("water", "trees", "snow")
        assert dataset.scales == (0.004,) * 3
        assert 250 * dataset.scales[0] + dataset.offsets[0] == 1.0
        assert "alpha" not in {str(c).lower() for c in dataset.colorinterp}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_windows_in_any_order_give_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    rows, cols = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 600))
    grid = grid_of(rows, cols)
    pixels = pixels_of(grid, seed=rows)
    row_cuts = sorted(data.draw(st.sets(st.integers(1, max(1, rows - 1)), max_size=4)) - {rows})
    col_cuts = sorted(data.draw(st.sets(st.integers(1, max(1, cols - 1)), max_size=4)) - {cols})
    parts = data.draw(st.permutations(windows(grid, row_cuts, col_cuts)))
    one, counts = write_map(tmp_path_factory.mktemp("one"), grid, pixels, [grid.window])
    many, same = write_map(tmp_path_factory.mktemp("many"), grid, pixels, parts)
    assert counts == same
    for a, b in zip(one.paths, many.paths, strict=True):
        assert a.read_bytes() == b.read_bytes()


def test_nodata_stays_out_of_overviews_and_products_agree(tmp_path: Path) -> None:
    grid = grid_of(1200, 1400)
    pixels = pixels_of(grid)
    pixels["confidence"][:600][pixels["confidence"][:600] != 255] = 80
    outputs, _ = write_map(tmp_path, grid, pixels, [grid.window])
    valid = read(outputs.map, level=0)[0] != 255
    any_valid = (pixels["map"] != 255).reshape(600, 2, 700, 2).any(axis=(1, 3))
    np.testing.assert_array_equal(valid, any_valid)
    np.testing.assert_array_equal(read(outputs.confidence, level=0)[0] != 255, valid)
    np.testing.assert_array_equal(read(outputs.sensors, level=0)[0] != 0, valid)
    assert set(np.unique(read(outputs.map, level=1))) <= {1, 2, 7, 255}
    top = read(outputs.confidence, level=0)[0][:300]
    assert set(np.unique(top)) <= {80, 255}  # a mean of 80s, whatever holes are among them


def test_what_nobody_writes_is_nodata(tmp_path: Path) -> None:
    grid = grid_of(900, 800)
    outputs, counts = write_map(tmp_path, grid, pixels_of(grid), [Window(300, 300, 10, 10)])
    rest = read(outputs.map)[0]
    rest[300:310, 300:310] = 255
    assert (rest == 255).all()
    assert (read(outputs.sensors)[0][:300] == 0).all()
    assert counts.written == 100
    assert counts.nodata == counts.pixels - counts.mapped


def test_overviews_can_be_left_out(tmp_path: Path) -> None:
    grid = grid_of(900, 800)
    outputs = plan_outputs(tmp_path / "m.tif", json=False, png=False)
    with MapWriter(grid, outputs, legend=LEGEND, order=ORDER, tags=TAGS, overviews=False):
        pass
    with rasterio.open(outputs.map) as dataset:
        assert dataset.overviews(1) == []
    assert names(tmp_path) == ["m.tif", "m_confidence.tif", "m_sensors.tif"]


def break_window(w: Window, tiles: list[npt.NDArray[np.uint8]]) -> Iterator[tuple[Window, list[npt.NDArray[np.uint8]]]]:
    yield Window(-1, 0, *w.shape), tiles
    yield Window(0, 20, *w.shape), tiles
    yield w, [tiles[0][:-1], *tiles[1:]]
    yield w, [tiles[0].astype(np.int16), *tiles[1:]]  # type: ignore[list-item]
    yield w, [np.full_like(tiles[0], 3), *tiles[1:]]  # not in the legend
    yield w, [tiles[0], np.full_like(tiles[1], 255), *tiles[2:]]  # a class without a confidence
    yield w, [tiles[0], tiles[1], np.zeros_like(tiles[2]), tiles[3]]  # a class without a sensor
    yield w, tiles[:3]  # no probabilities


def test_wrong_tiles_are_refused(tmp_path: Path) -> None:
    grid = grid_of(20, 30)
    window = Window(0, 0, 20, 15)
    good = cut(pixels_of(grid), window)
    outputs = plan_outputs(tmp_path / "m.tif", probs=True, json=False, png=False)
    cases = list(break_window(window, good))
    with MapWriter(grid, outputs, legend=LEGEND, order=ORDER, tags=TAGS) as writer:
        for where, tiles in cases:
            with pytest.raises(ValueError, match=r"lie inside|legend|exactly where|are given|int16|\(19, 15\)"):
                writer.write(where, *tiles)
        writer.write(window, *good)
    assert (read(outputs.map)[0][:, :15] == good[0]).all()


def test_a_pixel_written_twice_is_noticed(tmp_path: Path) -> None:
    grid = grid_of(20, 30)
    with pytest.raises(ValueError, match="twice"):
        write_map(tmp_path, grid, pixels_of(grid), [grid.window, Window(3, 3, 1, 1)])
    assert names(tmp_path) == []


class Stopped(BaseException):
    """What a SIGTERM handler raises."""


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, Stopped])
@pytest.mark.parametrize("when", ["before", "between", "finished"])
def test_an_exception_leaves_nothing(tmp_path: Path, error: type[BaseException], when: str) -> None:
    grid = grid_of(300, 300)
    outputs = plan_outputs(tmp_path / "m.tif", probs=True)

    def run() -> None:
        with MapWriter(grid, outputs, legend=LEGEND, order=ORDER, tags=TAGS) as writer:
            if when != "before":
                writer.write(grid.window, *cut(pixels_of(grid), grid.window))
            if when == "finished":
                writer.finish()
                part_of(outputs.quicklook or tmp_path).write_bytes(b"half a picture")
            assert any(name.endswith(".part") for name in names(tmp_path))
            raise error

    with pytest.raises(error):
        run()
    assert names(tmp_path) == []


def test_a_companion_that_nobody_wrote_publishes_nothing(tmp_path: Path) -> None:
    grid = grid_of(30, 30)
    with (
        pytest.raises(ValueError, match=r"m\.json"),
        MapWriter(grid, plan_outputs(tmp_path / "m.tif"), legend=LEGEND, order=ORDER, tags=TAGS),
    ):
        pass
    assert names(tmp_path) == []


def test_names() -> None:
    outputs = plan_outputs("out/scene_map.tif", probs=True)
    assert [path.name for path in outputs.paths] == [
        "scene_map_confidence.tif",
        "scene_map_sensors.tif",
        "scene_map_probs.tif",
        "scene_map.json",
        "scene_map.png",
        "scene_map.tif",
    ]
    assert {path.parent for path in outputs.paths} == {Path("out")}
    with pytest.raises(OutputError, match="GeoTIFF") as caught:
        plan_outputs("map.png")
    assert caught.value.hint == "-o map.tif"


def test_existing_outputs_are_refused(tmp_path: Path) -> None:
    outputs = plan_outputs(tmp_path / "m.tif")
    refuse_existing(outputs, overwrite=False)
    for path in outputs.paths:
        path.touch()
        with pytest.raises(OutputError, match="exists already") as caught:
            refuse_existing(outputs, overwrite=False)
        assert "--overwrite" in caught.value.hint
        assert caught.value.exit_code == 2
        refuse_existing(outputs, overwrite=True)
        path.unlink()
    outputs.sensors.mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        refuse_existing(outputs, overwrite=True)


def test_an_input_is_never_overwritten(tmp_path: Path) -> None:
    scene = tmp_path / "scene.tif"
    scene.write_bytes(b"pixels")
    alias = tmp_path / "alias.tif"
    alias.symlink_to(scene)
    with pytest.raises(OutputError, match="is an input"):
        refuse_existing(plan_outputs(alias), overwrite=True, inputs=[scene])


@pytest.mark.parametrize("parent", ["missing", "file", "file/below"])
def test_a_folder_that_cannot_be_written(tmp_path: Path, parent: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    outputs = plan_outputs(tmp_path / parent / "m.tif")
    with pytest.raises(OutputError, match="cannot write") as caught:
        refuse_existing(outputs, overwrite=True)
    assert caught.value.hint
    with pytest.raises(OutputError), MapWriter(grid_of(3, 3), outputs, legend=LEGEND, order=ORDER, tags={}):
        pass
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(
    not Path("/proc/1").is_dir(), reason="needs a folder in which nobody, not even root, can create files"
)
def test_a_file_system_that_takes_no_files() -> None:
    with (
        pytest.raises(OutputError, match="cannot write"),
        MapWriter(grid_of(3, 3), plan_outputs("/proc/m.tif"), legend=LEGEND, order=ORDER, tags={}),
    ):
        pass


def test_a_disk_too_small_is_said_before_any_work(tmp_path: Path) -> None:
    outputs = plan_outputs(tmp_path / "m.tif")
    with (
        pytest.raises(OutputError, match="GB of disk"),
        MapWriter(grid_of(30_000_000, 30_000_000), outputs, legend=LEGEND, order=ORDER, tags={}),
    ):
        pass
    assert names(tmp_path) == []


def test_stale_parts_of_this_target_go_others_stay(tmp_path: Path) -> None:
    grid = grid_of(30, 30)
    mine = plan_outputs(tmp_path / "scene_map.tif", probs=True)
    for path in mine.paths:
        part_of(path).write_bytes(b"stale")
        raw_part_of(path).write_bytes(b"stale")
    part_of(tmp_path / "other_map.tif").write_bytes(b"another run")
    write_map(tmp_path, grid, pixels_of(grid), [grid.window])
    left = [name for name in names(tmp_path) if name.endswith(".part")]
    assert left == ["other_map.tif.part"]


def test_previous_outputs_survive_a_failed_overwrite(tmp_path: Path) -> None:
    grid = grid_of(30, 40)
    outputs, _ = write_map(tmp_path, grid, pixels_of(grid, seed=1), [grid.window])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(OutputError, match="exists already"):
        write_map(tmp_path, grid, pixels_of(grid), [grid.window])
    bad = Window(0, 0, 31, 40)
    with pytest.raises(ValueError, match="inside"):
        write_map(tmp_path, grid, pixels_of(grid), [Window(0, 0, 5, 5), bad], overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    write_map(tmp_path, grid, pixels_of(grid, seed=2), [grid.window], overwrite=True)
    np.testing.assert_array_equal(read(outputs.map)[0], pixels_of(grid, seed=2)["map"])
    assert len(names(tmp_path)) == 4


WRITE_AND_WAIT = """
import sys, time
from test_mapwriter import LEGEND, ORDER, MapWriter, cut, grid_of, part_of, pixels_of, plan_outputs
grid = grid_of(1500, 1500)
outputs = plan_outputs(sys.argv[1], probs=True, json=False, png=False)
with MapWriter(grid, outputs, legend=LEGEND, order=ORDER, tags={}, overwrite=True) as writer:
    writer.write(grid.window, *cut(pixels_of(grid), grid.window))
    if sys.argv[2] == "finished":
        writer.finish()
    print("written", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("when", ["writing", "finished"])
@pytest.mark.parametrize("earlier", [False, True])
def test_kill_9_leaves_only_parts(tmp_path: Path, when: str, earlier: bool) -> None:
    grid = grid_of(20, 20)
    if earlier:
        write_map(tmp_path, grid, pixels_of(grid), [grid.window])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    path = [str(Path(__file__).parent), *sys.path]
    child = subprocess.Popen(
        [sys.executable, "-c", WRITE_AND_WAIT, str(tmp_path / "scene_map.tif"), when],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"written\n"
        child.send_signal(signal.SIGKILL)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if not path.name.endswith(".part")}
    assert after == before
    assert any(name.endswith(".part") for name in names(tmp_path))
    outputs, _ = write_map(tmp_path, grid, pixels_of(grid, seed=3), [grid.window], overwrite=earlier)
    assert len(names(tmp_path)) == 4
    np.testing.assert_array_equal(read(outputs.map)[0], pixels_of(grid, seed=3)["map"])


DIE_BETWEEN_RENAMES = """
import os, signal, sys
from pathlib import Path
from test_mapwriter import grid_of, pixels_of, write_map
replace, left = os.replace, [int(sys.argv[2])]
def rename(source, target):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = rename
grid = grid_of(20, 20)
write_map(Path(sys.argv[1]), grid, pixels_of(grid, seed=1), [grid.window], overwrite=True)
"""


@pytest.mark.parametrize("renames", [0, 1, 3])
def test_a_publication_that_was_killed_is_finished(tmp_path: Path, renames: int) -> None:
    """Killed before the first of four renames a run has left nothing to keep; after it, all that is missing."""
    grid = grid_of(20, 20)
    outputs, _ = write_map(tmp_path, grid, pixels_of(grid), [grid.window])
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    told = [sys.executable, "-c", DIE_BETWEEN_RENAMES, str(tmp_path), str(renames)]
    assert subprocess.run(told, env=os.environ | {"PYTHONPATH": path}).returncode == -signal.SIGKILL
    assert part_of(outputs.map).is_file()
    finish_killed(outputs)
    finished = read(outputs.map), read(outputs.confidence)
    expected = pixels_of(grid, seed=1 if renames else 0)
    np.testing.assert_array_equal(finished[0][0], expected["map"])
    np.testing.assert_array_equal(finished[1][0], expected["confidence"])
    assert not renames or len(names(tmp_path)) == 4
    write_map(tmp_path, grid, pixels_of(grid, seed=3), [grid.window], overwrite=True)
    assert len(names(tmp_path)) == 4


def test_one_run_at_a_time_writes_a_map(tmp_path: Path) -> None:
    grid = grid_of(20, 20)
    outputs = plan_outputs(tmp_path / "scene_map.tif", probs=True, json=False, png=False)
    with MapWriter(grid, outputs, legend=LEGEND, order=ORDER) as first:
        first.write(grid.window, *cut(pixels_of(grid), grid.window))
        with pytest.raises(OutputError, match=r"`scene_map.tif` is being written by another run"):
            write_map(tmp_path, grid, pixels_of(grid, seed=1), [grid.window])
    np.testing.assert_array_equal(read(outputs.map)[0], pixels_of(grid)["map"])
    assert len(names(tmp_path)) == 4


FILL_THE_DISK = """
import resource, sys
from test_mapwriter import LEGEND, ORDER, MapWriter, cut, grid_of, pixels_of, plan_outputs
from mmedge.errors import OutputError
grid = grid_of(1500, 1500)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    outputs = plan_outputs(sys.argv[1], probs=True, json=False, png=False)
    with MapWriter(grid, outputs, legend=LEGEND, order=ORDER, tags={}) as w:
        w.write(grid.window, *cut(pixels_of(grid), grid.window))
except OutputError as err:
    sys.exit(err.exit_code)
sys.exit(99)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
@pytest.mark.parametrize("limit", [500_000, 2_400_000, 5_000_000])
def test_a_full_disk_fails_and_leaves_nothing(tmp_path: Path, limit: int) -> None:
    """A limit on the size of files fails writes as a full disk does: in the raw part, its overviews, or the COG."""
    done = subprocess.run(
        [sys.executable, "-c", FILL_THE_DISK, str(tmp_path / "m.tif"), str(limit)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr.decode()
    assert names(tmp_path) == []
