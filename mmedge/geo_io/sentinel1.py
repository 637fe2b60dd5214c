"""Sentinel-1 GRD and stripmap SLC: SAFE folders and single measurement files, calibrated to sigma0 in dB.

sigma0 = DN^2 / A^2 with A from the product's calibration vectors, interpolated linearly between their lines and pixels
(ESA, Radiometric Calibration of Level-1 Products, ESA-EOPG-CSCOP-TN-0002). It is sigma0 on the ellipsoid: no terrain
correction, and thermal noise is not subtracted. DN 0 (the border, and gaps) is no data, as is 65535 (saturated).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
import numpy.typing as npt
from rasterio.crs import CRS

from mmedge.errors import SceneError
from mmedge.geo_io.acquired import parse_acquisition
from mmedge.geo_io.gcp import ControlPoints
from mmedge.geo_io.raster import inspect_raster
from mmedge.geo_io.rasterfile import RasterFile
from mmedge.geo_io.sar import to_db
from mmedge.geo_io.xmlfile import number_of, numbers_of, read_xml, text_of
from mmedge.grid import Window
from mmedge.tile import Data, Valid

Table = npt.NDArray[np.float64]

MEASUREMENT = re.compile(
    r"s1[a-d]-(?P<mode>iw|ew|s[1-6]|wv)(?P<swath>\d?)-(?P<kind>grd|slc)-(?P<band>vv|vh|hh|hv)-[\w-]+\.tiff",
    re.IGNORECASE,
)
FILL = (0.0, 65535.0)


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Calibration vectors of one polarisation: `a` (lines, pixels) at image rows `line` and columns `pixel`."""

    line: Table
    pixel: Table
    a: Table

    def at(self, window: Window) -> Table:
        """A at every pixel of a window: (height, width)."""
        rows = np.clip(np.arange(window.row, window.row + window.height), self.line[0], self.line[-1])
        cols = np.arange(window.col, window.col + window.width)
        after = np.clip(np.searchsorted(self.line, rows, side="right"), 1, len(self.line) - 1)
        needed = slice(after.min() - 1, after.max() + 1)
        across = np.stack([np.interp(cols, self.pixel, vector) for vector in self.a[needed]])
        after_here = after - needed.start
        share = ((rows - self.line[after - 1]) / (self.line[after] - self.line[after - 1]))[:, None]
        return np.asarray(across[after_here - 1] * (1 - share) + across[after_here] * share)

    def __call__(self, data: Data, valid: Valid, window: Window) -> tuple[Data, Valid]:
        """Amplitudes in DN (bands, rows, cols) as sigma0 in dB."""
        return to_db((data / self.at(window)).astype(np.float32), valid, "amplitude")


def read_product(path: Path) -> list[RasterFile] | None:
    """The calibrated polarisations of a SAFE folder, or the one that `path` names; None where it is not Sentinel-1.

    A measurement file outside its SAFE folder stays in digital numbers. Raises SceneError.
    """
    if path.is_dir():
        files = sorted(file for file in path.glob("measurement/*") if MEASUREMENT.fullmatch(file.name))
        return [_described(file) for file in files] or None
    if not MEASUREMENT.fullmatch(path.name):
        return None
    inside = path.parent.name == "measurement" and (path.parents[1] / "annotation").is_dir()
    return [_described(path) if inside else _alone(path)]


def read_calibration(path: Path) -> Calibration:
    """The sigma0 vectors of an annotation/calibration file. Raises SceneError."""
    vectors = list(read_xml(path).iter("calibrationVector"))
    lines = np.array([number_of(vector, "line", path) for vector in vectors])
    if len(lines) < 2 or (np.diff(lines) <= 0).any():
        raise SceneError(f"`{path}` has no rising calibration lines", hint="download the product again")
    pixel, _ = _vector(vectors[0], path)
    a = np.stack([np.interp(pixel, *_vector(vector, path)) for vector in vectors])
    return Calibration(lines, pixel, a)


def _vector(vector: Element, path: Path) -> tuple[Table, Table]:
    """(pixels, A) of one calibration vector."""
    pixel, a = (np.array(numbers_of(vector, name, path)) for name in ("pixel", "sigmaNought"))
    if len(pixel) != len(a) or (np.diff(pixel) <= 0).any() or not (np.isfinite(a) & (a > 0)).all():
        raise SceneError(f"`{path}` has a damaged calibration vector", hint="download the product again")
    return pixel, a


def _alone(path: Path) -> RasterFile:
    """A measurement file as its name describes it."""
    match = MEASUREMENT.fullmatch(path.name)
    name = match["band"].upper() if match else ""
    if match and match["kind"].lower() == "slc" and match["swath"]:
        raise SceneError(
            f"`{path.name}` is one sub-swath of bursts: places and overlaps of a TOPS SLC are not resolved by mmedge",
            hint="give the GRD product, or deburst and merge it first (SNAP: TOPSAR-Deburst)",
        )
    file = inspect_raster(path)
    return replace(file, bands=tuple(replace(b.named("sar", name), fill=FILL) for b in file.bands))


def _described(path: Path) -> RasterFile:
    """A measurement file of a SAFE folder, with its calibration, date and, where the file has none, control points."""
    file = _alone(path)
    folder = path.parents[1] / "annotation"
    annotation = folder / f"{path.stem}.xml"
    calibration = folder / "calibration" / f"calibration-{path.stem}.xml"
    root = read_xml(annotation)
    span = "/".join(text_of(root, name, annotation) for name in ("startTime", "stopTime"))
    said = "sigma0 on the ellipsoid: no terrain correction, thermal noise not subtracted"
    return replace(
        file,
        bands=tuple(band.assuming(said) for band in file.bands),
        control=file.control or (None if file.grid.crs else _control(root, annotation, file.grid.shape)),
        acquired=parse_acquisition(span, source=annotation.name),
        convert=read_calibration(calibration),
        sidecars=(annotation, calibration),
    )


def _control(root: Element, path: Path, shape: tuple[int, int]) -> ControlPoints:
    """The geolocation grid of an annotation. Its lines and pixels are those of the control points in the TIFF."""
    names = ("line", "pixel", "longitude", "latitude")
    points = [[number_of(p, name, path) for name in names] for p in root.iter("geolocationGridPoint")]
    if len(points) < 4:
        raise SceneError(f"`{path}` has {len(points)} geolocation points", hint="download the product again")
    row, col, x, y = zip(*points, strict=True)
    return ControlPoints(shape=shape, row=row, col=col, x=x, y=y, crs=CRS.from_epsg(4326).to_wkt())
