"""Images that rational polynomials place. SYNTHETIC coefficients over real pixels, for no such image was at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.rpc import RPC
from rasterio.transform import RPCTransformer
from rasterio.warp import transform

from mmedge.errors import GeoreferenceError, SceneError
from mmedge.geo_io.gather import SceneOptions
from mmedge.geo_io.rasters.gcp import control_grid, polynomial_points
from mmedge.geo_io.rasters.header import inspect_raster
from mmedge.geo_io.scene import open_scene

SHAPE = (224, 224)
# Terms of a cubic in longitude L, latitude P and height H, in the order of RPC00B.
ORDER = ("1", "L", "P", "H", "LP", "LH", "PH", "LL", "PP", "HH")


def polynomial(**terms: float) -> list[float]:
    named = dict(zip(ORDER, [0.0] * len(ORDER), strict=True)) | {k.replace("one", "1"): v for k, v in terms.items()}
    return [*named.values(), *[0.0] * 10]


def coefficients() -> RPC:
    """A view from the side, turned and bent: lines fall to the south, samples rise to the east."""
    return RPC(
        height_off=350.0,
        height_scale=200.0,
        lat_off=-38.83,
        lat_scale=0.0101,
        long_off=-72.48,
        long_scale=0.013,
        line_off=112.0,
        line_scale=112.0,
        samp_off=112.0,
        samp_scale=112.0,
        line_num_coeff=polynomial(one=0.01, P=-1.0, L=0.12, H=0.05, PP=0.01),
        line_den_coeff=polynomial(one=1.0, L=0.004),
        samp_num_coeff=polynomial(L=1.0, P=0.1, H=-0.04, LP=0.01),
        samp_den_coeff=polynomial(one=1.0, P=-0.003),
    )


@pytest.fixture(scope="module")
def image(chile: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rpc") / "image.tif"
    with rasterio.open(chile / "optical.tif") as src:
        data = src.read([2])
    profile: dict[str, Any] = {"driver": "GTiff", "count": 1, "height": 224, "width": 224, "dtype": data.dtype}
    with rasterio.open(path, "w", **profile, rpcs=coefficients()) as out:
        out.write(data)
        out.descriptions = ("optical:B02",)
    return path


def by_hand(lon: Any, lat: Any) -> tuple[Any, Any]:
    """(row, col) of places at the mean height, as the standard says; it counts pixels from their centres."""
    rpc = coefficients()
    x, y = (lon - rpc.long_off) / rpc.long_scale, (lat - rpc.lat_off) / rpc.lat_scale
    one, h = np.ones_like(x), np.zeros_like(x)
    terms = np.stack([one, x, y, h, x * y, x * h, y * h, x * x, y * y, h * h])

    def value(c: list[float]) -> Any:
        return np.tensordot(np.array(c[:10]), terms, 1)

    row = rpc.line_off + rpc.line_scale * value(rpc.line_num_coeff) / value(rpc.line_den_coeff) + 0.5
    col = rpc.samp_off + rpc.samp_scale * value(rpc.samp_num_coeff) / value(rpc.samp_den_coeff) + 0.5
    return row, col


def test_places_are_those_of_the_polynomials(image: Path) -> None:
    control = inspect_raster(image).control
    assert control is not None
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(min(control.x), max(control.x), 400), rng.uniform(min(control.y), max(control.y), 400)
    row, col = by_hand(lon, lat)
    inside = (row > 0) & (row < 224) & (col > 0) & (col < 224)
    assert inside.sum() > 100
    found = control_grid(control).rowcol(lon[inside], lat[inside])
    np.testing.assert_allclose(found, (row[inside], col[inside]), atol=0.02)
    with RPCTransformer(coefficients(), rpc_height=350.0) as gdal:
        told = gdal.rowcol(lon[inside], lat[inside], op=lambda value: value)
    np.testing.assert_allclose(found, told, atol=0.02)


def test_an_image_lands_where_it_was_taken(image: Path, chile: Path) -> None:
    """Every pixel of the north-up scene is the image's pixel at that place, within the four around it."""
    with open_scene(None, None, SceneOptions(sources={"optical": [image]})) as scene:
        tile = scene.read(scene.grid.window)
        assert any("rational polynomials at 350 m" in text for text in scene.assumptions)
        assert "32718" in scene.grid.crs
        rows, cols = np.nonzero(tile.valid["optical"])
        x, y = scene.grid.xy(rows + 0.5, cols + 0.5)
        lon, lat = transform(scene.grid.crs, "EPSG:4326", x, y)[:2]
    with rasterio.open(chile / "optical.tif") as src:
        data = np.pad(src.read(2) / 1e4, 1, mode="edge")
    row, col = by_hand(np.array(lon), np.array(lat))
    r, c = np.floor(row - 0.5).astype(int) + 1, np.floor(col - 0.5).astype(int) + 1
    four = np.stack([data[np.clip(r + i, 0, 225), np.clip(c + j, 0, 225)] for i in (0, 1) for j in (0, 1)])
    value = tile.data["optical"][0][rows, cols]
    inner = (row > 1) & (row < 223) & (col > 1) & (col < 223)
    near = (value >= four.min(axis=0) - 1e-6) & (value <= four.max(axis=0) + 1e-6)
    assert inner.sum() > 20_000
    assert near[inner].mean() > 0.98  # of places within 0.02 pixels of a pixel's edge either side may be right


def test_polynomials_that_place_nothing_are_refused() -> None:
    broken = coefficients()
    broken.line_num_coeff = [0.0] * 20
    broken.samp_num_coeff = [0.0] * 20
    with pytest.raises(GeoreferenceError, match="place nothing"):
        polynomial_points(broken, "x.tif", SHAPE)


@pytest.mark.parametrize("value", ["112", "much"])
def test_damaged_polynomials_are_said(image: Path, tmp_path: Path, value: str) -> None:
    """One of ten entries, in a side-car."""
    path = tmp_path / "image.tif"
    with rasterio.open(image) as src, rasterio.open(path, "w", **(src.profile | {"rpcs": None})) as out:
        out.write(src.read())
    entry = f'<Metadata domain="RPC"><MDI key="LINE_OFF">{value}</MDI></Metadata>'
    path.with_name("image.tif.aux.xml").write_text(f"<PAMDataset>{entry}</PAMDataset>")
    with pytest.raises(SceneError, match="damaged rational polynomials"):
        inspect_raster(path)
