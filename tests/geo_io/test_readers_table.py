"""Every raster of ../shared/data/open/readers: the right pixels, compared with rasterio's, or the right error.

docs/readers.md is this table. After a change, write it again:
`PYTHONPATH=.:tests python tests/geo_io/test_readers_table.py`
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.warp import Resampling, reproject

from mmedge.errors import GeoreferenceError, MMEdgeError, ReadError, SceneError, UnitError
from mmedge.geo_io.gather import SceneOptions
from mmedge.geo_io.scene import open_scene
from mmedge.grid import Window

DOC = Path(__file__).parents[2] / "docs" / "readers.md"
BEGIN, END = "<!-- rasters -->\n", "<!-- end of rasters -->\n"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One file. `sensor` and `bands` are what the user says of it (none: it says so itself).

    `factor`, `plus`: the file's numbers in model units, `db`: their amplitude in dB. `valid`: share, in percent, known
    from the file. `names`: bands by the file's own word. `crs`: where it is not the file's whole CRS. `error`: what is
    raised instead, with a part of its message.
    """

    file: str
    special: str
    does: str
    sensor: str = ""
    bands: tuple[str, ...] = ()
    scale: tuple[float, float] | None = None
    factor: float = 1.0
    plus: float = 0.0
    db: bool = False
    valid: float = 100.0
    error: tuple[type[MMEdgeError], str] | None = None
    names: tuple[str, ...] = ()
    crs: str = ""

    def options(self, root: Path) -> SceneOptions:
        key = self.sensor or "optical"
        return SceneOptions(
            sources={self.sensor: [root / self.file]} if self.sensor else {},
            bands={key: self.bands} if self.bands else {},
            scale={key: self.scale} if self.scale else {},
        )

    def open(self, root: Path) -> Any:
        return open_scene(None if self.sensor else root / self.file, None, self.options(root))


def optical(file: str, special: str, does: str, **facts: Any) -> Case:
    return Case(file=file, special=special, does=does, sensor="optical", **facts)


def elevation(file: str, special: str, does: str, **facts: Any) -> Case:
    return Case(file=file, special=special, does=does, sensor="elevation", bands=("DEM",), **facts)


NO_CRS = (GeoreferenceError, "has no CRS and no ground control points")
RGB = ("B04", "B03", "B02")
SLC_OFF = "int16 with fill -999: stripes of the failed scan-line corrector, and clouds"
S2 = "ssl4eo/s2c/20200604T054639_20200604T054831_T43RCP"
S1 = "ssl4eo/s1/S1A_IW_GRDH_1SDV_20200607T010800_20200607T010825_032904_03CFBA_D457"
TURNED = "complex64, grid turned by 90°, scale factor in the image description, clipped at ±32767"
PICTURE = "as reflectance DN / 255 (an assumption)"

CASES = [
    optical("rasterio/byte.tif", "the plain case, no nodata", f"reads it {PICTURE}", bands=("B04",), factor=1 / 255),
    Case(
        file="rasterio/float32.tif",
        special="no CRS, south-up",
        does="refuses: nothing places it",
        sensor="elevation",
        error=NO_CRS,
    ),
    Case(
        file="rasterio/float_nan.tif",
        special="nodata is NaN, no CRS",
        does="refuses: nothing places it",
        sensor="elevation",
        error=NO_CRS,
    ),
    elevation(
        "rasterio/float_raster_with_nodata.tif",
        "nodata -3.4e38 stored as another double; CRS of IGNF",
        "compares nodata in float32; keeps the CRS as WKT",
        valid=62.8,
    ),
    elevation(
        "rasterio/float_raster_with_extra_nodata.tif",
        "as above, with a rim of nodata",
        "the rim is invalid",
        valid=15.9,
    ),
    Case(
        file="rasterio/all-nodata.tif",
        special="every pixel is nodata",
        does="reads it; nothing is valid, no warning",
        names=("B02", "B03", "B04"),
        factor=1e-4,
        valid=0.0,
    ),
    Case(
        file="rasterio/alpha.tif",
        special="JPEG; band 4 is alpha",
        does=f"alpha decides what is valid; reads colours {PICTURE}",
        names=RGB,
        factor=1 / 255,
        valid=1.55,
    ),
    Case(
        file="rasterio/RGBA.uint16.tif",
        special="blue, green, red, alpha; dx ≠ dy",
        does="bands by colour, not by position; alpha decides what is valid",
        names=("B02", "B03", "B04"),
        factor=1e-4,
        valid=48.9,
    ),
    Case(
        file="rasterio/red.tif",
        special="nodata 0 declared, never present",
        does=f"every pixel is valid; reads colours {PICTURE}",
        names=RGB,
        factor=1 / 255,
    ),
    Case(
        file="rasterio/rgb-byte-tenth.tif",
        special="CRS without a code, nodata 0, pixels not square",
        does=f"a pixel is valid where all bands are; reads colours {PICTURE}",
        names=RGB,
        factor=1 / 255,
        valid=67.4,
    ),
    Case(
        file="rasterio/rotated.tif",
        special="rotated, no CRS",
        does="refuses: nothing places it",
        sensor="optical",
        error=NO_CRS,
    ),
    optical(
        "rasterio/test_esri_wkt.tif",
        "CRS ESRI:102039",
        "keeps the CRS; reflectance DN / 10000 (an assumption)",
        bands=("B04",),
        factor=1e-4,
    ),
    optical(
        "rasterio/world.byte.tif",
        "the whole world in degrees",
        "pixel size in metres at the centre",
        bands=("B04",),
        factor=1 / 255,
    ),
    Case(
        file="rasterio/goes.tif",
        special="geostationary view with its own mask; corners are off the Earth",
        does="the mask decides what is valid",
        names=RGB,
        factor=1 / 255,
        valid=78.3,
    ),
    Case(
        file="rasterio/corrupt.tif",
        special="intact header, damaged pixels",
        does="names the file and the rows and columns that cannot be read",
        error=(ReadError, r"corrupt\.tif` at rows \d+-\d+, columns \d+-\d+"),
    ),
    optical(
        "rio_tiler/cog_dateline.tif",
        "UTM scene across 180° E",
        "reads it; its footprint is split at 180°",
        bands=("B04",),
        factor=1e-4,
    ),
    Case(
        file="rio_tiler/cog_scale.tif",
        special="scale and offset per band, nodata 0",
        does="applies both after nodata is taken out; as optical it is refused: no reflectance",
        sensor="optical",
        bands=("B03", "B04"),
        error=(UnitError, "is no reflectance"),
    ),
    Case(
        file="rio_tiler/cog_rgb_mask.tif",
        special="a mask in place of nodata",
        does="the mask decides what is valid",
        names=RGB,
        factor=1 / 255,
        valid=96.9,
    ),
    elevation(
        "rio_tiler/cog_nonearth.tif",
        "CRS of Europa, a moon of Jupiter",
        "refuses: another body than the Earth",
        error=(GeoreferenceError, "another body than the Earth"),
    ),
    elevation(
        "rio_tiler/cog_fullearth.tif",
        "float64 with nodata -1.27e30",
        "nodata is compared before values become float32",
        valid=45.6,
    ),
    Case(
        file="rio_cogeo/image_with_offsets.tif",
        special="scale, offset 1000, nodata -1000 in raw numbers",
        does="nodata is compared before scaling; as optical it is refused: no reflectance",
        error=(UnitError, "is no reflectance"),
    ),
    Case(
        file="rio_cogeo/slc.tif",
        special="complex_int16 under 210 control points, not calibrated",
        does="refuses digital numbers; with `--scale sar=...` intensity in dB on a UTM grid "
        "(`test_complex_numbers_become_intensity`)",
        sensor="sar",
        bands=("VV",),
        error=(UnitError, "not calibrated"),
    ),
    Case(
        file="pyrosar/S1A__IW___A_20150309T173017_VV_grd_mli_geo_norm_db.tif",
        special="gamma0 in dB, nodata -99 declared, never present",
        does="band and date from the file's name; every pixel is valid",
        sensor="sar",
        names=("VV",),
    ),
    Case(
        file="pyrosar/S1A__IW___A_20150309T173017_VV_grd_mli_geo_norm_db.tif.aux.xml",
        special="side-car with statistics",
        does="refuses: no raster",
        error=(SceneError, "not a raster"),
    ),
    Case(
        file="sarsen/s1b-iw-grd-vv-no-crs.tiff",
        special="871 MB in 0.4 MB; neither CRS nor control points",
        does="refuses from the header alone",
        error=NO_CRS,
    ),
    Case(
        file="sarsen/s1a-iw1-slc-vv-gcps.tiff",
        special="2.4 GB in 48 kB; one sub-swath of bursts under control points",
        does="refuses from the name: bursts are not merged; asks for the GRD",
        error=(SceneError, "sub-swath of bursts"),
    ),
    elevation(
        "sarsen/Rome-30m-DEM.tif",
        "compound CRS with heights",
        "takes the horizontal part; heights stay what they are",
        crs="EPSG:4326",
    ),
    elevation("stars/olinda_dem_utm25s.tif", "CRS with the bogus code EPSG:32000", "takes the CRS as it is written"),
    *(
        Case(
            file=f"spacenet6/sar_{band.lower()}.tif",
            special=TURNED,
            does="calibrated intensity in dB by the whole affine; clipped samples are invalid",
            sensor="sar",
            names=(band,),
            factor=factor,
            db=True,
            valid=valid,
        )
        for band, factor, valid in (
            ("HH", 0.0002777517937677223, 99.95),
            ("HV", 5.9878522918909676e-05, 99.955),
            ("VH", 8.066453641248833e-05, 99.9625),
            ("VV", 0.0002808831688792394, 99.9425),
        )
    ),
    Case(
        file="spacenet6/sar_masked.tif",
        special="NaN without a nodata tag",
        does="NaN is invalid",
        sensor="sar",
        bands=("HH", "HV", "VH", "VV"),
        valid=60.8,
    ),
    Case(
        file="spacenet6/rgb_unmasked.tif",
        special="grid equal to sar_masked.tif's but for the 4th digit",
        does=f"one grid, no resampling; reads colours {PICTURE}",
        names=RGB,
        factor=1 / 255,
    ),
    *(
        optical(
            f"landsat7_slcoff/LS7_ETM_095_082_{date}_B40.nc",
            SLC_OFF,
            "gaps are invalid, and stay gaps",
            bands=("B08",),
            factor=1e-4,
            valid=valid,
        )
        for date, valid in (("20100116", 77.6), ("20100201", 38.0), ("20100508", 80.4))
    ),
    Case(
        file="worldcereal/worldcereal_preprocessed_inputs.nc",
        special="15 variables of 12 months, no band of its own",
        does="refuses, and names how to take one out",
        error=(SceneError, "holds 15 data sets and no bands"),
    ),
    *(
        optical(
            f"{S2}/{stem}.tif",
            f"{gsd} m band of an old Level-1C on its own grid, in degrees",
            "band from the file's name; reflectance DN / 10000 (an assumption)",
            names=(name,),
            factor=1e-4,
        )
        for stem, name, gsd in (
            ("B2", "B02", 10),
            ("B5", "B05", 20),
            ("B8", "B08", 10),
            ("B8A", "B8A", 20),
            ("B9", "B09", 60),
            ("B11", "B11", 20),
        )
    ),
    Case(
        file=f"{S1}/VV.tif",
        special="dB, the place of the optical files, three days later, shifted by part of a pixel",
        does="band from the file's name; resampled in linear power",
        sensor="sar",
        names=("VV",),
    ),
]


@pytest.fixture(scope="module")
def readers(shared_data: Path) -> Path:
    return shared_data / "open" / "readers"


def expected(case: Case, path: Path) -> tuple[Any, Any]:
    """(values in model units, valid) by rasterio alone."""
    with rasterio.open(path) as src:
        count = len(case.names) or len(case.bands)
        indexes = [i for i in src.indexes if src.colorinterp[i - 1] != ColorInterp.alpha][:count]
        raw = src.read(indexes)
        valid = (src.read_masks(indexes) != 0).all(axis=0) & np.isfinite(raw).all(axis=0)
        if raw.dtype.kind == "c":
            valid &= ((np.abs(raw.real) < 32767) & (np.abs(raw.imag) < 32767)).all(axis=0)
            raw = np.abs(raw)
    values = np.where(valid, raw, 1).astype(np.float64) * case.factor + case.plus
    return (20 * np.log10(values) if case.db else values), valid


@pytest.mark.parametrize("case", [c for c in CASES if not c.error], ids=lambda c: c.file)
def test_pixels_are_rasterios(readers: Path, case: Case) -> None:
    with case.open(readers) as scene:
        (name,) = scene.sensors
        tile = scene.read(scene.grid.window)
        found = scene.sources[name].info.bands
        with rasterio.open(readers / case.file) as src:
            assert scene.grid.transform == tuple(src.transform)[:6]
            assert rasterio.CRS.from_wkt(scene.grid.crs) == (case.crs or src.crs)
    values, valid = expected(case, readers / case.file)
    where = [found.index(band) for band in case.names] if case.names else list(range(len(case.bands)))
    if case.names and len(found) > len(case.names):  # a fourth colour that is no colour: valid has its nodata too
        assert case.valid == 0.0
    np.testing.assert_array_equal(tile.valid[name], valid)
    np.testing.assert_allclose(tile.data[name][where][:, valid], values[:, valid], rtol=1e-5, atol=1e-6)
    assert 100 * valid.mean() == pytest.approx(case.valid, abs=0.051)


@pytest.mark.parametrize("case", [c for c in CASES if c.error], ids=lambda c: c.file)
def test_errors_say_what_is_wrong(readers: Path, case: Case) -> None:
    assert case.error
    kind, said = case.error
    with pytest.raises(kind, match=said) as caught:
        case.open(readers)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("file", "bands"), [("rio_tiler/cog_scale.tif", ("a", "b")), ("rio_cogeo/image_with_offsets.tif", ("a",))]
)
def test_scale_and_offset_after_nodata(readers: Path, file: str, bands: tuple[str, ...]) -> None:
    """As a sensor without a unit of its own, so that the values of the file come through."""
    with open_scene(None, None, SceneOptions(sources={"thermal": [readers / file]}, bands={"thermal": bands})) as scene:
        tile = scene.read(scene.grid.window)
    with rasterio.open(readers / file) as src:
        raw, nodata = src.read(), src.nodata
        scales, offsets = (np.array(v)[:, None, None] for v in (src.scales, src.offsets))
    valid = (raw != nodata).all(axis=0)
    assert tile.valid["thermal"].mean() == valid.mean()
    np.testing.assert_array_equal(tile.valid["thermal"], valid)
    np.testing.assert_allclose(tile.data["thermal"][:, valid], (raw * scales + offsets)[:, valid], rtol=1e-6)


def test_bands_on_three_grids_and_a_radar_beside_them(readers: Path) -> None:
    files = [readers / S2 / f"{band}.tif" for band in ("B2", "B5", "B8", "B8A", "B9", "B11")]
    vv = readers / S1 / "VV.tif"
    options = SceneOptions(sources={"optical": files, "sar": [vv]}, reference="optical")
    with open_scene(None, None, options) as scene:
        grid, tile = scene.grid, scene.read(scene.grid.window)
    assert grid.shape == (264, 264)
    assert tile.valid["optical"].mean() > 0.97  # the 60 m band ends a few pixels earlier
    power = np.zeros(grid.shape)
    with rasterio.open(vv) as src:
        reproject(
            10 ** (src.read(1).astype(np.float64) / 10),
            power,
            src_transform=src.transform,
            src_crs=src.crs,
            dst_transform=rasterio.Affine(*grid.transform),
            dst_crs=grid.crs,
            resampling=Resampling.bilinear,
        )
    inner = np.s_[5:-5, 5:-5]
    assert tile.valid["sar"][inner].all()
    np.testing.assert_allclose(tile.data["sar"][0][inner], 10 * np.log10(power[inner]), atol=0.02)


def test_two_grids_that_differ_in_the_fourth_digit_are_one(readers: Path) -> None:
    sources = {"sar": [readers / "spacenet6/sar_masked.tif"], "optical": [readers / "spacenet6/rgb_unmasked.tif"]}
    bands = {"sar": ["HH", "HV", "VH", "VV"]}
    with open_scene(None, None, SceneOptions(sources=sources, bands=bands, reference="sar")) as scene:
        tile = scene.read(Window(0, 0, 200, 200))
    with rasterio.open(sources["optical"][0]) as src:
        np.testing.assert_allclose(tile.data["optical"], src.read() / np.float32(255), atol=1e-6)


def test_every_raster_is_in_the_table(readers: Path) -> None:
    point_clouds, notes = {".las", ".laz"}, {".md", ".csv", ".txt"}
    files = {
        path.relative_to(readers).as_posix()
        for path in readers.rglob("*")
        if path.is_file() and path.suffix.lower() not in point_clouds | notes and "LICENSES" not in path.parts
    }
    assert {case.file for case in CASES} == files
    assert len(CASES) == len(files)


def table() -> str:
    lines = ["| file | what is special | what mmedge does | valid pixels |", "|---|---|---|---|"]
    for case in CASES:
        outcome = f"{case.error[0].__name__}" if case.error else f"{case.valid:g} %"
        lines.append(f"| `{case.file}` | {case.special} | {case.does} | {outcome} |")
    return "\n".join(lines) + "\n"


def test_the_page_is_the_table() -> None:
    page = DOC.read_text(encoding="utf-8")
    assert page.partition(BEGIN)[2].partition(END)[0] == table(), "write docs/readers.md again: see this file's top"


if __name__ == "__main__":
    before, _, rest = DOC.read_text(encoding="utf-8").partition(BEGIN)
    DOC.write_text(before + BEGIN + table() + END + rest.partition(END)[2], encoding="utf-8")
