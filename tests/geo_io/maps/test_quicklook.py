"""The picture of a map: what stands in it, its proportions, and that it is the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from PIL import Image
from rasterio.crs import CRS

from mmedge.bundle import LandClass
from mmedge.files import part_of
from mmedge.geo_io.maps.mapwriter import MapWriter
from mmedge.geo_io.maps.outputs import plan_outputs
from mmedge.geo_io.maps.quicklook import length_label, percent, round_length, write_quicklook
from mmedge.grid import Grid

LEGEND = (
    LandClass(1, "water", (0, 100, 200)),
    LandClass(2, "trees", (0, 100, 0)),
    LandClass(3, "snow", (240, 240, 240)),
)
UTM = CRS.from_epsg(32719).to_wkt()
FEET = CRS.from_epsg(2263).to_wkt()
DEGREES = CRS.from_epsg(4326).to_wkt()
MERCATOR = CRS.from_epsg(3857).to_wkt()
LOCAL = 'LOCAL_CS["site",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]'

ORIGINS = {FEET: (980000.0, 200000.0), DEGREES: (10.0, 60.0), MERCATOR: (1e6, 8399738.0)}


def picture(
    folder: Path,
    classes: npt.NDArray[np.uint8],
    *,
    pixel: tuple[float, float] = (10.0, -10.0),
    crs: str = UTM,
    shear: float = 0,
) -> Image.Image:
    folder.mkdir(exist_ok=True)
    origin = ORIGINS.get(crs, (300000.0, 6000000.0))
    grid = Grid(*classes.shape, (pixel[0], shear, origin[0], 0.0, pixel[1], origin[1]), crs)
    outputs = plan_outputs(folder / "scene_map.tif", json=False)
    valid = classes != 255
    assert outputs.quicklook is not None
    with MapWriter(grid, outputs, legend=LEGEND, order=("optical",), tags={}, overwrite=True) as writer:
        writer.write(grid.window, classes, np.where(valid, 90, 255).astype(np.uint8), valid.astype(np.uint8))
        write_quicklook(
            part_of(outputs.map),
            part_of(outputs.quicklook),
            legend=LEGEND,
            counts=writer.finish(),
            title="scene",
            subtitle="optical",
        )
    return Image.open(outputs.quicklook).convert("RGB")


def colored(image: Image.Image, color: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
    return (np.asarray(image) == color).all(axis=2)


def extent(found: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Height and width of what is True."""
    rows, cols = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    return int(np.ptp(rows)) + 1, int(np.ptp(cols)) + 1


def largest(found: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Without the swatch of the legend: only rows and columns that hold more than a swatch's worth."""
    return found & (found.sum(axis=1) > 60)[:, None] & (found.sum(axis=0) > 60)


def test_a_large_map_is_drawn_at_1600_px_from_the_mode(tmp_path: Path) -> None:
    classes = np.ones((2400, 3200), np.uint8)
    classes[::2, ::2] = 2  # a quarter: gone in the mode, there in a nearest neighbour
    classes[:, 1600:] = 2
    image = picture(tmp_path, classes)
    assert extent(largest(colored(image, (0, 100, 200)))) == (1200, 800)
    assert extent(largest(colored(image, (0, 100, 0)))) == (1200, 800)


def test_a_small_map_is_enlarged_in_whole_steps(tmp_path: Path) -> None:
    image = picture(tmp_path, np.full((30, 40), 2, np.uint8))
    assert extent(largest(colored(image, (0, 100, 0)))) == (600, 800)


def test_degrees_are_drawn_in_true_proportions(tmp_path: Path) -> None:
    """At 60 degrees north a degree of longitude is half a degree of latitude."""
    classes = np.full((100, 100), 2, np.uint8)
    height, width = extent(largest(colored(picture(tmp_path, classes, pixel=(1e-4, -1e-4), crs=DEGREES), (0, 100, 0))))
    assert height == 800
    assert width / height == pytest.approx(0.5, abs=0.01)


def test_nodata_is_hatched_and_no_class_has_its_colour(tmp_path: Path) -> None:
    classes = np.full((100, 100), 3, np.uint8)
    classes[:50] = 255
    image = picture(tmp_path, classes)
    assert extent(largest(colored(image, (241, 243, 245)))) == (400, 800)
    assert colored(image, (206, 212, 218)).sum() > 30_000  # the lines of the hatch
    assert extent(largest(colored(image, (240, 240, 240)))) == (400, 800)


def test_the_legend_holds_only_what_occurs(tmp_path: Path) -> None:
    one = picture(tmp_path / "one", np.full((100, 100), 2, np.uint8))
    classes = np.full((100, 100), 2, np.uint8)
    classes[:10] = 1
    two = picture(tmp_path / "two", classes)
    assert not colored(one, (0, 100, 200)).any()
    panel = np.asarray(two)[:, 880:]
    assert (panel == (0, 100, 200)).all(axis=2).sum() > 400  # a swatch
    assert (panel == (0, 100, 0)).all(axis=2).sum() > 400
    assert not (np.asarray(one)[:, 880:] == (0, 100, 200)).all(axis=2).any()


def test_scale_bar_has_the_length_it_says(tmp_path: Path) -> None:
    """800 m in 800 px: 1 m a pixel, so the bar within 290 px is 200 m long, in four parts, the first one black."""
    image = picture(tmp_path, np.full((80, 80), 2, np.uint8))
    ink = colored(image, (33, 37, 41))[:, 880:]
    row = int(np.argmax(ink.sum(axis=1)))  # its upper edge
    bar = np.flatnonzero(ink[row, :290])
    assert int(np.ptp(bar)) == pytest.approx(200, abs=1)


def test_feet_and_mercator_are_measured_on_the_ground(tmp_path: Path) -> None:
    """A 10 ft pixel is 3.048 m; 10 m of Mercator at 60 degrees are about 5 m."""
    square = np.full((80, 80), 2, np.uint8)
    feet = picture(tmp_path / "feet", square, crs=FEET)
    metres = picture(tmp_path / "metres", square, pixel=(3.048, -3.048))
    mercator = picture(tmp_path / "mercator", square, crs=MERCATOR)
    five = picture(tmp_path / "five", square, pixel=(5.012, -5.012))
    bars = [extent(colored(image, (33, 37, 41))[700:, 880:1170])[1] for image in (feet, metres, mercator, five)]
    assert bars[0] == pytest.approx(bars[1], abs=2)
    assert bars[2] == pytest.approx(bars[3], abs=2)
    assert abs(bars[0] - bars[2]) > 20


def test_north_arrow_only_where_up_is_north(tmp_path: Path) -> None:
    straight = picture(tmp_path / "straight", np.full((80, 80), 2, np.uint8))
    sheared = picture(tmp_path / "sheared", np.full((80, 80), 2, np.uint8), shear=3.0)
    upside_down = picture(tmp_path / "down", np.full((80, 80), 2, np.uint8), pixel=(10.0, 10.0))
    arrow = [colored(image, (33, 37, 41))[800:, -80:].any() for image in (straight, sheared, upside_down)]
    assert arrow == [True, False, False]


def test_a_local_crs_gets_no_scale_bar(tmp_path: Path) -> None:
    image = picture(tmp_path, np.full((80, 80), 2, np.uint8), crs=LOCAL)
    assert not colored(image, (33, 37, 41))[700:, 880:].any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 2), (300, 1000)])
def test_odd_shapes_give_a_page_that_holds_everything(tmp_path: Path, shape: tuple[int, int]) -> None:
    image = picture(tmp_path, np.full(shape, 2, np.uint8))
    edge = np.asarray(image)
    assert image.width <= 2100
    assert image.height <= 2100
    assert (edge[-1] == 255).all()
    assert (edge[:, -1] == 255).all()  # nothing is cut at the margin


def test_same_map_same_bytes_and_nothing_about_the_machine(tmp_path: Path) -> None:
    classes = np.random.default_rng(0).choice(np.array([1, 2, 3, 255], np.uint8), (200, 300))
    for name in ("a", "b"):
        picture(tmp_path / name, classes)
    raw = (tmp_path / "a" / "scene_map.png").read_bytes()
    assert raw == (tmp_path / "b" / "scene_map.png").read_bytes()
    assert b"tEXt" not in raw
    assert b"tIME" not in raw
    with rasterio.open(tmp_path / "a" / "scene_map.tif") as dataset:
        assert str(tmp_path) not in str(dataset.tags())


def test_numbers_as_people_write_them() -> None:
    assert [round_length(v) for v in (1.0, 1.9, 2.0, 4.99, 7, 99, 1234)] == [1, 1, 2, 2, 5, 50, 1000]
    assert [length_label(v) for v in (5000, 500, 1, 0.2, 20000)] == ["5 km", "500 m", "1 m", "20 cm", "20 km"]
    assert [percent(v) for v in (1, 0.1234, 0.0004)] == ["100.0 %", "12.3 %", "< 0.1 %"]
