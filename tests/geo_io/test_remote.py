"""Scenes behind URLs: read by range, through failures, and nothing is fetched that nobody named."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil

from mmedge.edge.infer import infer
from mmedge.errors import MMEdgeError, ReadError, SceneError, UsageError
from mmedge.geo_io.gather import SceneOptions
from mmedge.geo_io.location import RemoteFile, locate, without_secrets
from mmedge.geo_io.rasters.header import inspect_raster
from mmedge.geo_io.scene import open_scene
from mmedge.grid import Window

TESTS = Path(__file__).parents[1]
TOKEN = "sig=tellnobody"


@dataclass
class Server:
    folder: Path
    port: int
    log: Path

    def url(self, manner: str, name: str, query: str = "") -> str:
        return f"http://127.0.0.1:{self.port}/{manner}/{name}{query}"

    def requests(self, name: str) -> list[list[str]]:
        """[verb, path, status, range, bytes] of the requests for a file."""
        lines = (line.split() for line in self.log.read_text().splitlines())
        return [line for line in lines if len(line) == 5 and name in line[1]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """In a process of its own: GDAL holds Python's lock during some calls."""
    folder, log = tmp_path_factory.mktemp("served"), tmp_path_factory.mktemp("log") / "requests.txt"
    with log.open("w") as out:
        process = subprocess.Popen([sys.executable, str(TESTS / "range_server.py"), str(folder)], stdout=out)
        try:
            while not (text := log.read_text()).endswith("\n"):
                assert process.poll() is None
                time.sleep(0.02)
            yield Server(folder, int(text), log)
        finally:
            process.kill()
            process.wait()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment goes before our settings, as it does for users."""
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "1")
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.05")


def served(server: Server, source: Path, name: str) -> Path:
    """A copy under a name of its own: GDAL remembers URLs for the life of a process."""
    target = server.folder / name
    target.write_bytes(source.read_bytes())
    return target


def big(server: Server, chile: Path, name: str) -> Path:
    """The example's radar, repeated to 1792 x 1792 pixels, as a cloud-optimised GeoTIFF of a few MB."""
    with rasterio.open(chile / "sar.tif") as src:
        pixels = np.tile(src.read(), (1, 8, 8)) + np.random.default_rng(0).normal(size=(2, 1792, 1792)).astype(
            "float32"
        )
        profile = {**src.profile, "driver": "COG", "height": 1792, "width": 1792, "blocksize": 256}
        for key in ("tiled", "blockxsize", "blockysize", "interleave", "predictor"):
            profile.pop(key, None)
        plain = server.folder / f"plain_{name}"
        with rasterio.open(plain, "w", **{**src.profile, "height": 1792, "width": 1792}) as out:
            out.write(pixels)
            out.descriptions = src.descriptions
        with rasterio.open(plain) as made:
            rasterio.shutil.copy(made, server.folder / name, driver="COG", blocksize=256, overviews="NONE")
    return server.folder / name


def window(path: Any, where: Window, options: SceneOptions | None = None) -> Any:
    with open_scene(path, None, options) as scene:
        return scene.read(where).data["sar"]


@pytest.mark.parametrize("manner", ["plain", "flaky", "stall", "cut", "norange"])
def test_pixels_are_right_however_the_server_behaves(server: Server, chile: Path, manner: str) -> None:
    local = served(server, chile / "sar.tif", f"{manner}.tif")
    with open_scene(server.url(manner, local.name)) as remote, open_scene(local) as here:
        whole = here.read(here.grid.window)
        found = remote.read(remote.grid.window)
    np.testing.assert_array_equal(found.data["sar"], whole.data["sar"])
    np.testing.assert_array_equal(found.valid["sar"], whole.valid["sar"])


def test_only_the_ranges_under_a_window_are_fetched(server: Server, chile: Path) -> None:
    local = big(server, chile, "large.tif")
    with inspect_reader(server.url("plain", local.name)) as remote:
        before = sum(int(r[4]) for r in server.requests("plain/large.tif"))
        found = remote.read(Window(300, 300, 100, 100))[0]
    with rasterio.open(local) as src:
        np.testing.assert_array_equal(found, src.read(window=((300, 400), (300, 400))))
    fetched = sum(int(r[4]) for r in server.requests("plain/large.tif"))
    assert before < 100_000
    assert fetched < local.stat().st_size / 20
    assert not [r for r in server.requests("large") if not r[1].endswith("/large.tif")]  # no side-cars


def inspect_reader(url: str) -> Any:
    from contextlib import closing

    from mmedge.geo_io.rasters.reader import RasterReader

    file = inspect_raster(locate(url))
    return closing(RasterReader(file.path, file.bands))


@pytest.mark.parametrize("manner", ["dead", "away", "private"])
def test_a_server_that_never_works_is_an_error_that_names_the_url(server: Server, chile: Path, manner: str) -> None:
    local = served(server, chile / "sar.tif", f"{manner}.tif")
    start = time.monotonic()
    with pytest.raises(SceneError, match=f"cannot open `http://127.0.0.1:{server.port}/{manner}/{manner}.tif`"):
        open_scene(server.url(manner, local.name))
    assert time.monotonic() - start < 10
    if manner == "dead":
        assert 3 <= len(server.requests(local.name)) <= 12


def test_a_header_that_never_comes_is_given_up_in_time(
    server: Server, chile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "15")
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    local = served(server, chile / "sar.tif", "hang.tif")
    start = time.monotonic()
    with pytest.raises(SceneError, match=r"did not show its header within 0\.5 s"):
        inspect_raster(locate(server.url("hang", local.name)), timeout_s=0.5)
    assert time.monotonic() - start < 10  # not when the server's time is up


def test_a_server_that_dies_between_header_and_pixels(server: Server, chile: Path) -> None:
    local = big(server, chile, "mortal.tif")
    with inspect_reader(server.url("plain", local.name)) as remote:
        remote.read(Window(0, 0, 10, 10))
        local.unlink()
        with pytest.raises(SceneError, match=r"cannot open `http://.*/mortal\.tif`: HTTP response code: 404"):
            remote.read(Window(1500, 1500, 10, 10))


def test_pixels_that_never_come_are_an_error_with_their_place(server: Server, chile: Path) -> None:
    local = big(server, chile, "torn.tif")
    whole = local.read_bytes()
    local.write_bytes(whole[: len(whole) // 2])
    broken = pytest.raises(ReadError, match=r"torn\.tif` at rows 1700-1710, columns 1700-1710")
    with inspect_reader(server.url("plain", local.name)) as remote, broken as caught:
        remote.read(Window(1700, 1700, 10, 10))
    assert "try again" in caught.value.hint


def test_secrets_of_a_url_are_never_shown(
    server: Server,
    chile: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    small: Path,
) -> None:
    caplog.set_level(logging.DEBUG)
    local = served(server, chile / "scene.tif", "private.tif")
    url = server.url("private", local.name, f"?{TOKEN}")
    record = infer(url, tmp_path / "map.tif", model=small)
    with pytest.raises(SceneError) as wrong:
        open_scene(server.url("private", "other.tif", "?sig=wrongsecret"))
    torn = server.folder / "torn_header.tif"
    torn.write_bytes(local.read_bytes()[:3000])
    with pytest.raises(SceneError) as damaged:
        open_scene(server.url("private", torn.name, f"?{TOKEN}"))
    assert "torn_header.tif" in str(damaged.value)
    with pytest.raises(SceneError) as missing:
        open_scene(f"http://user:passsecret@127.0.0.1:{server.port}/private/none.tif?{TOKEN}")
    outputs = b"".join(path.read_bytes() for path in record.outputs.paths)
    said = [
        caplog.text,
        *capfd.readouterr(),
        str(wrong.value),
        str(missing.value),
        str(damaged.value),
        json.dumps(record.document()),
    ]
    for text in [*said, outputs.decode("latin1")]:
        assert "tellnobody" not in text
        assert "wrongsecret" not in text
        assert "passsecret" not in text
    assert f"127.0.0.1:{server.port}/private/private.tif" in outputs.decode("latin1")
    assert TOKEN in "".join(r[1] for r in server.requests("private.tif"))


def test_a_map_from_a_url_is_the_map_from_the_file(server: Server, chile: Path, small: Path, tmp_path: Path) -> None:
    local = served(server, chile / "scene.tif", "mapped.tif")
    here = infer(local, tmp_path / "here.tif", model=small)
    there = infer(server.url("flaky", local.name), tmp_path / "there.tif", model=small)
    with rasterio.open(here.outputs.map) as a, rasterio.open(there.outputs.map) as b:
        np.testing.assert_array_equal(a.read(), b.read())
    assert there.provenance.inputs[0].name == "mapped.tif"
    assert there.provenance.inputs[0].sha256 is None


def test_a_file_per_sensor_may_be_a_url(server: Server, chile: Path) -> None:
    local = served(server, chile / "sar.tif", "per_sensor.tif")
    options = SceneOptions(
        sources={"sar": [locate(server.url("plain", local.name))], "optical": [chile / "optical.tif"]}
    )
    with open_scene(None, None, options) as scene:
        assert [str(f) for f in scene.files] == [server.url("plain", "per_sensor.tif"), str(chile / "optical.tif")]


def write_item(path: Path, *hrefs: str, name: str = "x", kind: str = "Feature") -> Path:
    assets = {
        f"a{i}": {"href": h, "type": "image/tiff", "bands": [{"name": "vv"}, {"name": "vh"}]}
        for i, h in enumerate(hrefs)
    }
    path.write_text(json.dumps({"type": kind, "id": name, "properties": {"datetime": None}, "assets": assets}))
    return path


def test_an_item_fetches_nothing_unless_it_may(server: Server, chile: Path, tmp_path: Path) -> None:
    local = served(server, chile / "sar.tif", "asset.tif")
    item = write_item(tmp_path / "item.json", server.url("plain", local.name))
    with pytest.raises(SceneError, match="points outside its own folder") as caught:
        open_scene(item)
    assert "--allow-remote" in caught.value.hint
    assert server.requests("asset.tif") == []
    with open_scene(item, None, SceneOptions(allow_remote=True)) as scene:
        assert scene.sensors == ("sar",)
    assert server.requests("asset.tif")


def test_an_item_behind_a_url_has_its_folder_too(server: Server, chile: Path) -> None:
    served(server, chile / "sar.tif", "beside.tif")
    write_item(server.folder / "beside.json", "./beside.tif")
    with open_scene(server.url("plain", "beside.json")) as scene:
        assert str(scene.files[0]) == server.url("plain", "beside.tif")
    allowed = SceneOptions(allow_remote=True)
    for href in (
        "../flaky/beside.tif",
        "/flaky/beside.tif",
        "%2e%2e/flaky/beside.tif",
        "http://localhost/plain/beside.tif",
    ):
        write_item(server.folder / "out.json", href)
        with pytest.raises(SceneError, match="points outside its own folder"):
            open_scene(server.url("plain", "out.json"))
    for href in ("file:///etc/passwd.tif", "/vsicurl/http://127.0.0.1/x.tif", "ftp://127.0.0.1/x.tif"):
        write_item(server.folder / "out.json", href)
        with pytest.raises(SceneError, match="never followed"):
            open_scene(server.url("plain", "out.json"), None, allowed)
    with pytest.raises(SceneError, match="cannot fetch"):
        open_scene(server.url("dead", "beside.json"))


@pytest.mark.parametrize(
    "href",
    ["{away}", "file://{away}", "../away/sar.tif", "link.tif", "linked/sar.tif"],
)
def test_local_files_outside_the_folder_need_leave(chile: Path, tmp_path: Path, href: str) -> None:
    folder, away = tmp_path / "item", tmp_path / "away"
    folder.mkdir()
    away.mkdir()
    (away / "sar.tif").write_bytes((chile / "sar.tif").read_bytes())
    (folder / "link.tif").symlink_to(away / "sar.tif")
    (folder / "linked").symlink_to(away)
    item = write_item(folder / "item.json", href.format(away=away / "sar.tif"))
    with pytest.raises(SceneError, match="points outside its own folder"):
        open_scene(item)
    with open_scene(item, None, SceneOptions(allow_remote=True)) as scene:
        assert scene.sensors == ("sar",)


@pytest.mark.parametrize(
    "href",
    [
        "/vsicurl/http://127.0.0.1/x.tif",
        "/vsizip/x.zip/x.tif",
        "%2Fvsizip%2Fx.zip/x.tif",
        "zip+https://127.0.0.1/x.zip!x.tif",
        "ftp://127.0.0.1/x.tif",
        "//127.0.0.1/share/x.tif",
        "netcdf:x.nc:y.tif",
        "a\x00.tif",
        "http://[::1/x.tif",
    ],
)
def test_tricks_are_refused_with_leave_and_without(tmp_path: Path, href: str) -> None:
    for allow_remote in (False, True):
        with pytest.raises(SceneError, match=r"never followed|no place of a file"):
            open_scene(write_item(tmp_path / "i.json", href), None, SceneOptions(allow_remote=allow_remote))


def test_a_vrt_is_no_raster_whatever_it_is_called(server: Server, chile: Path, tmp_path: Path) -> None:
    local = served(server, chile / "sar.tif", "behind_vrt.tif")
    with rasterio.open(local) as src:
        rows, cols = src.shape
    text = (
        f'<VRTDataset rasterXSize="{cols}" rasterYSize="{rows}"><VRTRasterBand dataType="Float32" band="1">'
        "<SimpleSource>"
        f"<SourceFilename>/vsicurl/{server.url('plain', local.name)}</SourceFilename><SourceBand>1</SourceBand>"
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    for name in ("x.vrt", "x.tif"):
        (tmp_path / name).write_text(text)
        (server.folder / name).write_text(text)
        for path in (tmp_path / name, write_item(tmp_path / "i.json", name), server.url("plain", name)):
            with pytest.raises(MMEdgeError):
                open_scene(path, None, SceneOptions(bands={"sar": ["VV"]}))
    assert server.requests("behind_vrt.tif") == []


def test_a_side_car_that_names_an_overview_elsewhere_is_not_followed(
    server: Server, chile: Path, tmp_path: Path
) -> None:
    path = tmp_path / "sar.tif"
    path.write_bytes((chile / "sar.tif").read_bytes())
    served(server, chile / "sar.tif", "overview.tif")
    (tmp_path / "sar.tif.aux.xml").write_text(
        '<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">'
        f"/vsicurl/{server.url('plain', 'overview.tif')}</MDI></Metadata></PAMDataset>"
    )
    with open_scene(path) as scene:
        scene.read(scene.grid.window)
    assert server.requests("overview.tif") == []


def collection(path: Path, *names: str) -> Path:
    items = [json.loads(write_item(path, "sar.tif", name=name).read_text()) for name in names]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return path


def test_one_item_of_a_collection_is_chosen(chile: Path, tmp_path: Path) -> None:
    (tmp_path / "sar.tif").write_bytes((chile / "sar.tif").read_bytes())
    with pytest.raises(SceneError, match="2 items, and one is a scene; there are: may, june") as caught:
        open_scene(collection(tmp_path / "items.json", "may", "june"))
    assert "--item may" in caught.value.hint
    with open_scene(tmp_path / "items.json", None, SceneOptions(item="june")) as scene:
        assert scene.name == "june"
    with pytest.raises(SceneError, match="no item `july`"):
        open_scene(tmp_path / "items.json", None, SceneOptions(item="july"))
    with open_scene(collection(tmp_path / "one.json", "only")) as scene:
        assert scene.name == "only"


def test_the_name_of_an_item_is_no_path(chile: Path, tmp_path: Path) -> None:
    (tmp_path / "sar.tif").write_bytes((chile / "sar.tif").read_bytes())
    with open_scene(write_item(tmp_path / "i.json", "sar.tif", name="../../etc/x")) as scene:
        assert scene.name == "_.._etc_x"


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "nonsense",
        "[" * 100_000,
        '{"type": "Feature", "assets": []}',
        '{"type": "Feature", "assets": {"a": 3, "b": {"type": "image/tiff"}}}',
        '{"type": "Feature", "assets": {"vv": {"href": "x.tif", "bands": [7], "roles": 3}}}',
        '{"type": "Feature", "assets": {"vv": {"href": "x.tif", "bands": [{"scale": "big"}]}}}',
        '{"type": "FeatureCollection", "features": 5}',
        '{"type": "FeatureCollection", "features": []}',
        '{"type": "Feature", "id": {}, "properties": [], "assets": {"vv": {"href": 5}}}',
    ],
)
def test_a_damaged_item_is_an_error_of_ours(tmp_path: Path, text: str) -> None:
    (tmp_path / "item.json").write_text(text)
    with pytest.raises(SceneError):
        open_scene(tmp_path / "item.json")


def test_places_as_people_type_them() -> None:
    assert locate("a/b.tif") == Path("a/b.tif")
    assert locate("file:///a/b%20c.tif") == Path("/a/b c.tif")
    assert locate("s3://bucket/a/b.tif") == RemoteFile("s3://bucket/a/b.tif")
    assert RemoteFile("s3://bucket/a/b.tif").vsi == "/vsis3/bucket/a/b.tif"
    url = RemoteFile("https://u:p@host/d/a%20b.tif?sig=1#f")
    assert (url.name, url.stem, url.suffix) == ("a b.tif", "a b", ".tif")
    assert str(url).startswith("https://host/d/a%20b.tif?...")
    assert url.vsi == "/vsicurl?empty_dir=yes&url=https%3A%2F%2Fu%3Ap%40host%2Fd%2Fa%2520b.tif%3Fsig%3D1%23f"
    assert str(url) != str(RemoteFile("https://u:p@host/d/a%20b.tif?sig=2"))
    assert "sig" not in repr(url) + str(url)
    for wrong in ("gs://b/x.tif", "/vsicurl/http://h/x.tif", "http:///x.tif"):
        with pytest.raises(UsageError):
            locate(wrong)
    assert without_secrets("no https://a:b@h/x?k=v, https://h/y#z") == "no https://h/x?... https://h/y?..."


def test_settings_for_urls_are_taken_back(server: Server, chile: Path) -> None:
    from rasterio._env import get_gdal_config

    from mmedge.geo_io.location import OPTIONS

    before = {key: get_gdal_config(key) for key in OPTIONS}
    local = served(server, chile / "sar.tif", "settings.tif")
    with open_scene(server.url("plain", local.name)) as scene:
        scene.read(Window(0, 0, 9, 9))
    assert {key: get_gdal_config(key) for key in OPTIONS} == before


def test_s3_with_credentials_of_the_environment(
    server: Server, chile: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name, value in {
        "AWS_S3_ENDPOINT": f"127.0.0.1:{server.port}",
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "verysecretkey",
    }.items():
        monkeypatch.setenv(name, value)
    local = served(server, chile / "sar.tif", "bucketed.tif")
    with open_scene("s3://flaky/bucketed.tif") as scene, open_scene(local) as here:
        np.testing.assert_array_equal(scene.read(here.grid.window).data["sar"], here.read(here.grid.window).data["sar"])
    with pytest.raises(SceneError, match=r"cannot open `s3://plain/nothing\.tif`") as missing:
        open_scene("s3://plain/nothing.tif")
    assert "verysecretkey" not in caplog.text + str(missing.value)


def test_the_command_line_takes_urls_and_leave(
    server: Server, chile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mmedge.cli.app import run

    local = served(server, chile / "sar.tif", "typed.tif")
    url = server.url("plain", local.name)
    item = write_item(tmp_path / "item.json", url)
    assert run(["info", url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sensors"]["sar"]["files"] == ["typed.tif"]
    assert run(["info", "--source", f"sar={url}"]) == 0
    assert run(["info", str(item)]) == 2
    assert "--allow-remote" in capsys.readouterr().err
    assert run(["info", str(item), "--allow-remote"]) == 0
    assert run(["info", str(collection(tmp_path / "items.json", "may", "june")), "--item", "may"]) == 2
