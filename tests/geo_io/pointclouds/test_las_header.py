"""Damaged and hostile point clouds: our error, which names file and byte, and bounded memory."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import lazrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmedge.errors import MMEdgeError, ReadError, SceneError
from mmedge.geo_io.lidar import LidarSource
from mmedge.geo_io.pointclouds import las_chunks
from mmedge.geo_io.pointclouds.cloud import open_cloud
from mmedge.geo_io.pointclouds.las_chunks import Chunk
from mmedge.geo_io.pointclouds.las_header import LASZIP, read_header
from mmedge.grid import Grid

DATA = Path(__file__).parents[2] / "data" / "lidar"
ROOT = Path(__file__).parents[3]


def patched(name: str, folder: Path, *patches: tuple[int, bytes]) -> Path:
    raw = bytearray((DATA / name).read_bytes())
    for at, value in patches:
        raw[at : at + len(value)] = value
    path = folder / name
    path.write_bytes(raw)
    return path


def read_all(path: Path) -> None:
    cloud = open_cloud(path, crs="EPSG:2991", z_unit_m=None, swap_xy=False)
    grid = Grid(50, 50, (70.0, 0.0, 635_500.0, 0.0, -100.0, 853_600.0), cloud.crs.wkt)
    with LidarSource(path, grid, bands=["surface", "density"], crs="EPSG:2991") as source:
        source.read(grid.window)


U16, U32, U64, F64 = "<H", "<I", "<Q", "<d"
TABLE = struct.unpack_from("<q", (DATA / "simple.laz").read_bytes(), 333)[0]  # the LASzip chunk table
CASES = [
    ("simple.laz", [(0, b"LASX")], 0, "signature"),
    ("simple.laz", [(24, b"\2")], 24, "version 2.2"),
    ("simple.laz", [(94, struct.pack(U16, 100))], 94, "header"),
    ("simple.laz", [(96, struct.pack(U32, 10**9))], 96, "points at byte 1000000000"),
    ("simple.laz", [(104, b"\x8b")], 104, "point format 11"),
    ("simple.laz", [(105, struct.pack(U16, 33))], 105, "33 bytes a point"),
    ("simple.laz", [(105, struct.pack(U16, 40))], 105, "do not add up"),
    ("simple.laz", [(131, struct.pack(F64, float("nan")))], 131, "impossible scales"),
    ("simple.laz", [(139, struct.pack(F64, 0.0))], 131, "impossible scales"),
    ("simple.laz", [(107, struct.pack(U32, 4_000_000_000))], None, "LASzip chunks"),
    ("simple.laz", [(333, struct.pack("<q", 10**15))], 333, "chunk table"),
    ("simple.laz", [(333, struct.pack("<q", -1))], None, "chunk"),
    ("simple.laz", [(TABLE + 4, struct.pack(U32, 0xFFFFFFFF))], None, "LASzip chunks"),
    ("test1_4.las", [(247, struct.pack(U64, 2**62))], 32305, "claims 4611686018427387904 points"),
    ("simple.copc.laz", [(375 + 54 + 24, struct.pack(F64, float("inf")))], None, "COPC cube"),
    ("simple.copc.laz", [(375 + 54 + 40, struct.pack(U64, 2**60))], 2**60, "does not fit the file"),
    ("simple.copc.laz", [(375 + 54 + 48, struct.pack(U64, 2**40))], None, "does not fit the file"),
]


@pytest.mark.parametrize(
    ("name", "patches", "at", "what"), CASES, ids=[f"{c[0]}-{c[3]}-{i}" for i, c in enumerate(CASES)]
)
def test_a_damaged_header_is_named_with_file_and_byte(
    tmp_path: Path, name: str, patches: list[tuple[int, bytes]], at: int | None, what: str
) -> None:
    path = patched(name, tmp_path, *patches)
    with pytest.raises(SceneError, match=what) as caught:
        read_all(path)
    assert str(path) in str(caught.value)
    assert "at byte" in str(caught.value)
    assert at is None or f"(at byte {at})" in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["simple.laz", "simple.copc.laz", "test1_4.las", "1_4_w_evlr.laz"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.005, 0.02, 0.3, 0.9, 0.999])
def test_a_file_that_was_cut_is_refused(tmp_path: Path, name: str, share: float) -> None:
    raw = (DATA / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(raw[: int(len(raw) * share)])
    if name == "1_4_w_evlr.laz" and share == 0.999:  # only the EVLR, a comment, is gone
        assert any("EVLR 1 of 1" in text for text in open_cloud(path, crs=None, z_unit_m=None, swap_xy=False).warnings)
        return
    with pytest.raises(SceneError, match=r"at byte \d+"):
        read_all(path)


def test_a_copc_page_that_names_itself_is_refused(tmp_path: Path) -> None:
    raw = (DATA / "simple_with_page.copc.laz").read_bytes()
    root, size = struct.unpack_from("<2Q", raw, 375 + 54 + 40)
    entries = np.frombuffer(raw[root : root + size], "<i4").reshape(-1, 8)
    index = int(np.flatnonzero(entries[:, 7] == -1)[0])
    path = patched("simple_with_page.copc.laz", tmp_path, (root + 32 * index + 16, struct.pack("<Qi", root, size)))
    with pytest.raises(SceneError, match="named twice"):
        read_all(path)


def test_a_panic_of_lazrs_becomes_a_read_error(capfd: pytest.CaptureFixture[str]) -> None:
    header = read_header(DATA / "simple.laz")

    def panics() -> None:
        lazrs.decompress_points_with_chunk_table(b"12", header.records[LASZIP], bytearray(34), [(1, 100)])

    with pytest.raises(ReadError, match=r"PanicException.*\(at byte 341\)") as caught:
        las_chunks._guarded(header, 341, panics)
    assert not isinstance(caught.value.__cause__, Exception)
    assert "simple.laz" in str(caught.value)


def test_a_damaged_chunk_is_named_with_its_offset(tmp_path: Path) -> None:
    """Layer sizes of a format 7 chunk: lazrs would allocate 4 GB before it reads a byte."""
    header = read_header(DATA / "simple.copc.laz")
    first = header.point_offset + 8
    path = patched("simple.copc.laz", tmp_path, (first + 36 + 4, b"\xff\xff\xff\xff"))
    with pytest.raises(ReadError, match=rf"layers.*\(at byte {first}\)"):
        read_all(path)


def test_a_source_that_failed_stays_failed(tmp_path: Path) -> None:
    """Half of the points are binned then: a second read must not return them as if they were all."""
    path = tmp_path / "cut.las"
    path.write_bytes((DATA / "test1_4.las").read_bytes())
    cloud = open_cloud(path, crs=None, z_unit_m=None, swap_xy=False)
    grid = Grid(8, 8, (70.0, 0.0, 1_694_000.0, 0.0, -10.0, 1_816_540.0), cloud.crs.wkt)
    with LidarSource(path, grid, bands=["surface"]) as source:
        os.truncate(path, 20_000)
        for _ in range(2):
            with pytest.raises(ReadError, match="ends inside its points"):
                source.read(grid.window)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_flipped_bytes_give_a_tile_or_our_error(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["simple.laz", "simple.copc.laz", "1_4_w_evlr.laz", "bad_vlr_count.las"]))
    raw = bytearray((DATA / name).read_bytes())
    places = st.one_of(st.integers(0, min(len(raw), 2500) - 1), st.integers(0, len(raw) - 1))
    for at in data.draw(st.lists(places, min_size=1, max_size=6)):
        raw[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("flip") / name
    path.write_bytes(raw)
    caught: MMEdgeError | None = None
    try:
        read_all(path)
    except MMEdgeError as err:
        caught = err
    assert caught is None or (str(path) in str(caught) and caught.hint)


def run(code: str, *arguments: str) -> list[int]:
    """Integers that a fresh interpreter prints; an address-space limit of 3 GiB stands in for a small machine."""
    prelude = """
        import resource, sys
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
        from pathlib import Path
        from mmedge.geo_io.pointclouds.cloud import open_cloud
        from mmedge.geo_io.lidar import LidarSource
        from mmedge.grid import Grid
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    """
    script = textwrap.dedent(prelude) + textwrap.dedent(code)
    command = [sys.executable, "-W", "error", "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


OPENS = """
    open_cloud(Path(sys.argv[1]), crs="EPSG:2991", z_unit_m=None, swap_xy=False)
    before = peak()
    try:
        cloud = open_cloud(Path(sys.argv[2]), crs="EPSG:2991", z_unit_m=None, swap_xy=False)
        found = any("VLR" in text for text in cloud.warnings)
    except Exception as err:
        found = "at byte" in str(err)
    print(peak() - before, int(found))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are POSIX")
@pytest.mark.parametrize(
    ("name", "at", "value"),
    [
        ("bad_vlr_count.las", 100, b"\xff\xff\xff\xff"),  # VLRs
        ("test1_4.las", 243, b"\xff\xff\xff\xff"),  # EVLRs
        ("test1_4.las", 247, b"\xff\xff\xff\xff\xff\xff\xff\x7f"),  # points
        ("simple.laz", 107, b"\xff\xff\xff\xff"),  # points
    ],
)
def test_a_header_that_lies_about_a_count_does_not_eat_memory(tmp_path: Path, name: str, at: int, value: bytes) -> None:
    path = patched(name, tmp_path, (at, value))
    grown_mib, named = run(OPENS, str(DATA / name), str(path))
    assert named == 1
    assert grown_mib <= 8


GRIDS = """
    import numpy as np
    path, points = Path(sys.argv[1]), int(sys.argv[2])
    head = bytearray(Path(sys.argv[3]).read_bytes()[:227])  # format 0, no records
    head[107:111] = points.to_bytes(4, "little")
    block = np.zeros(500_000, [("xyz", "<i4", 3), ("rest", "u1", 8)])
    rng = np.random.default_rng(0)
    with open(path, "wb") as file:
        file.write(head)
        for _ in range(points // len(block)):
            block["xyz"] = rng.integers(0, 50_000, (len(block), 3))
            file.write(block.tobytes())
    cloud = open_cloud(path, crs="EPSG:32633", z_unit_m=None, swap_xy=False)
    grid = Grid(501, 501, (1.0, 0.0, 0.0, 0.0, -1.0, 500.0), cloud.crs.wkt)
    with LidarSource(path, grid, crs="EPSG:32633", bands=["surface", "density"]) as source:
        data, valid = source.read(grid.window)
    print(peak(), round(float(data[1].sum(dtype=float))))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are POSIX")
def test_memory_does_not_grow_with_the_cloud(tmp_path: Path) -> None:
    """A file of 10 MB and one of 200 MB, gridded by processes of the same size."""
    small, few = run(GRIDS, str(tmp_path / "small.las"), "500000", str(DATA / "hextest.las"))
    large, many = run(GRIDS, str(tmp_path / "large.las"), "10000000", str(DATA / "hextest.las"))
    assert (few, many) == (500_000, 10_000_000)
    assert large - small < 150, f"{small} MiB for 10 MB, {large} MiB for 200 MB"


def test_limits_hold_for_one_chunk() -> None:
    header = read_header(DATA / "simple.laz")
    las_chunks.check_chunk(header, Chunk(header.point_offset + 8, 10, 1), header.file_size)
    with pytest.raises(SceneError, match="decodes to more than"):
        las_chunks.check_chunk(header, Chunk(header.point_offset + 8, 10, 2**31), header.file_size)
    with pytest.raises(SceneError, match="leaves the point data"):
        las_chunks.check_chunk(header, Chunk(header.point_offset + 8, 10**6, 1), header.file_size)


def test_a_missing_file_and_a_pipe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="No such file"):
        read_header(tmp_path / "none.las")
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes here")
    os.mkfifo(tmp_path / "pipe.las")
    with pytest.raises(SceneError, match="not a regular file"):
        read_header(tmp_path / "pipe.las")
