"""Files that lie, are damaged, or never end: a read or an error of ours, in bounded memory and time."""

from __future__ import annotations

import collections
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from mmedge.errors import SceneError
from mmedge.geo_io.rasters.header import inspect_raster
from mmedge.geo_io.rasters.limits import within
from mmedge.geo_io.rasters.reader import RasterReader
from mmedge.geo_io.scene import open_scene
from mmedge.grid import Window

TESTS = Path(__file__).parents[1]


def sparse(path: Path, rows: int, cols: int, count: int = 1, **profile: Any) -> Path:
    """A header without pixels: whatever size it claims, the file stays small."""
    with rasterio.open(
        path, "w", driver="GTiff", height=rows, width=cols, count=count, crs="EPSG:32633", BIGTIFF="YES",
        transform=Affine(10, 0, 5e5, 0, -10, 5e6), **{"dtype": "uint8", "SPARSE_OK": "TRUE", **profile},
    ):  # fmt: skip
        pass
    return path


@pytest.mark.parametrize(
    ("said", "rows", "cols", "count", "profile"),
    [
        ("3000000 pixels a side", 10, 3_000_000, 1, {"tiled": True, "blockxsize": 32768, "blockysize": 16}),
        ("5000 bands", 4, 4, 5000, {"interleave": "band"}),
        (
            "402653184 bytes a block",
            90,
            90,
            3,
            {"tiled": True, "blockxsize": 16384, "blockysize": 8192, "interleave": "pixel", "compress": "deflate"},
        ),
        ("536870912 bytes a block", 8192, 8192, 1, {"blockysize": 8192, "dtype": "float64", "compress": "deflate"}),
    ],
)
def test_a_header_that_claims_too_much_is_refused(
    tmp_path: Path, said: str, rows: int, cols: int, count: int, profile: dict[str, Any]
) -> None:
    path = sparse(tmp_path / "big.tif", rows, cols, count, **profile)
    assert path.stat().st_size < 60_000_000
    with pytest.raises(SceneError, match=f"big.tif` claims {said}"):
        inspect_raster(path)


def test_more_pixels_than_the_earth_has_are_refused(tmp_path: Path) -> None:
    path = sparse(tmp_path / "earth.tif", 1_500_000, 1_500_000, tiled=True, blockxsize=16384, blockysize=16384)
    with pytest.raises(SceneError, match="claims 2250000000000 pixels"):
        inspect_raster(path)


def test_radar_that_unpacks_to_gigabytes_is_read_by_window(shared_data: Path) -> None:
    """871 MB from 0.4 MB, 2.4 GB from 48 kB: strips and tiles are small, so a window is."""
    grd = inspect_raster(shared_data / "open/readers/sarsen/s1b-iw-grd-vv-no-crs.tiff")
    reader = RasterReader(grd.path, grd.bands, shared=bool(grd.strip_bytes))
    where = Window(8000, 12000, 256, 512)
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(grd.path) as src:
        wanted = src.read(1, window=((8000, 8256), (12000, 12512)))
    data, valid = reader.read(where)
    reader.close()
    np.testing.assert_array_equal(data[0], wanted)
    np.testing.assert_array_equal(valid, wanted != 65535)
    assert grd.strip_bytes == (2 * 26102,)


def test_what_is_no_file_is_refused_unopened(tmp_path: Path) -> None:
    """Opened, the pipe would wait for a writer: the error would be another one, or the test's timeout."""
    pipe = tmp_path / "pipe.tif"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(SceneError, match="no regular file"):
            open_scene(path)


def test_work_that_hangs_is_given_up_and_work_that_fails_says_how() -> None:
    given_up = threading.Event()  # work that was waited for would hang until the test's timeout
    with pytest.raises(SceneError, match=r"`x.tif` did not show its header within 0\.2 s"):
        within(0.2, given_up.wait, "x.tif")
    given_up.set()
    assert within(30, lambda: 7, "x.tif") == 7
    with pytest.raises(ZeroDivisionError):
        within(30, lambda: 1 / 0, "x.tif")
    with pytest.raises(TimeoutError, match="mine"):
        within(30, lambda: (_ for _ in ()).throw(TimeoutError("mine")), "x.tif")


def test_a_hanging_header_does_not_keep_the_process(tmp_path: Path) -> None:
    code = (
        "import time; from mmedge.geo_io.rasters.limits import within\n"
        "try: within(0.1, lambda: time.sleep(60), 'x')\n"
        "except Exception as err: print(type(err).__name__)"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "SceneError"
    assert time.monotonic() - start < 20


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_damaged_files_are_read_or_refused_in_bounded_memory(chile: Path, shared_data: Path, tmp_path: Path) -> None:
    readers = shared_data / "open/readers"
    names = (
        "rasterio/alpha.tif",  # JPEG with alpha
        "rasterio/RGBA.uint16.tif",
        "rio_tiler/cog_rgb_mask.tif",  # internal mask
        "rio_tiler/cog_scale.tif",
        "rio_cogeo/slc.tif",  # complex integers, control points
        "sarsen/s1b-iw-grd-vv-no-crs.tiff",  # 0.9 GB once unpacked
        "sarsen/Rome-30m-DEM.tif",
        "landsat7_slcoff/LS7_ETM_095_082_20100201_B40.nc",
    )
    files = [chile / "scene.tif", *(readers / name for name in names)]
    command = [sys.executable, str(TESTS / "geo_io/fuzz_rasters.py"), str(tmp_path), "20", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    outcomes = collections.Counter(line.split()[0] for line in done.stdout.splitlines())
    assert done.returncode == 0, done.stderr[-2000:]
    assert outcomes.total() == 20 * len(files)
    assert outcomes["read"] >= 20
    assert outcomes["SceneError"] + outcomes["ReadError"] >= 60


@pytest.mark.skipif(sys.platform != "linux", reason="counts /proc/self/fd")
def test_a_thousand_scenes_leave_no_handle_open(chile: Path) -> None:
    def read(path: Path) -> None:
        with open_scene(path) as scene:
            scene.read(Window(0, 0, 20, 20))

    read(chile / "sar.tif")
    before = len(os.listdir("/proc/self/fd"))
    for i in range(1000):
        read(chile / ("sar.tif", "elevation.tif")[i % 2])
    assert len(os.listdir("/proc/self/fd")) <= before
