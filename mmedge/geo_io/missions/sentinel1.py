"""Sentinel-1 GRD and stripmap SLC: SAFE folders and single measurement files, calibrated to sigma0 in dB.

It is sigma0 on the ellipsoid: no terrain correction. DN 0 (the border, and gaps) is no data, as is 65535 (saturated).
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import Element

from rasterio.crs import CRS

from mmedge.errors import SceneError
from mmedge.geo_io.acquired import parse_acquisition
from mmedge.geo_io.missions.sentinel1_calibration import read_calibration
from mmedge.geo_io.missions.xmlfile import number_of, read_xml, text_of
from mmedge.geo_io.rasters.file import RasterFile
from mmedge.geo_io.rasters.gcp import ControlPoints
from mmedge.geo_io.rasters.header import inspect_raster

MEASUREMENT = re.compile(
    r"s1[a-d]-(?P<mode>iw|ew|s[1-6]|wv)(?P<swath>\d?)-(?P<kind>grd|slc)-(?P<band>vv|vh|hh|hv)-[\w-]+\.tiff",
    re.IGNORECASE,
)
FILL = (0.0, 65535.0)


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
    calibration, noise = (folder / "calibration" / f"{kind}-{path.stem}.xml" for kind in ("calibration", "noise"))
    root = read_xml(annotation)
    span = "/".join(text_of(root, name, annotation) for name in ("startTime", "stopTime"))
    known = noise.is_file()
    said = f"sigma0 on the ellipsoid: no terrain correction, thermal noise {'' if known else 'not '}subtracted"
    return replace(
        file,
        bands=tuple(band.assuming(said) for band in file.bands),
        control=file.control or (None if file.grid.crs else _control(root, annotation, file.grid.shape)),
        acquired=parse_acquisition(span, source=annotation.name),
        convert=read_calibration(calibration, noise if known else None),
        sidecars=(annotation, calibration, *([noise] if known else [])),
    )


def _control(root: Element, path: Path, shape: tuple[int, int]) -> ControlPoints:
    """The geolocation grid of an annotation. Its lines and pixels are those of the control points in the TIFF."""
    names = ("line", "pixel", "longitude", "latitude")
    points = [[number_of(p, name, path) for name in names] for p in root.iter("geolocationGridPoint")]
    if len(points) < 4:
        raise SceneError(f"`{path}` has {len(points)} geolocation points", hint="download the product again")
    row, col, x, y = zip(*points, strict=True)
    return ControlPoints(shape=shape, row=row, col=col, x=x, y=y, crs=CRS.from_epsg(4326).to_wkt())
