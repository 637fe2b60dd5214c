"""The STAC 1.1 item of a map: where, when, from what, by which model, and which files.

The item depends on the map alone: no time of processing, no host, no path. Its core fields are those of STAC; what
STAC has no field for goes under `mmedge:`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rasterio.crs import CRS

from mmedge import __version__
from mmedge.bundle import LandClass, checksum
from mmedge.errors import GeoreferenceError
from mmedge.files import part_of
from mmedge.geo_io.acquired import Acquisition, rfc3339
from mmedge.geo_io.acquired import acquisition_date as acquisition_date
from mmedge.geo_io.ground import footprint, pixel_size_m
from mmedge.geo_io.maps.mapwriter import MapCounts
from mmedge.geo_io.maps.outputs import Outputs
from mmedge.geo_io.maps.products import CONFIDENCE_NODATA, PROBS_NODATA, PROBS_STEPS, SENSORS_NODATA
from mmedge.grid import Grid
from mmedge.modality import Availability

STAC_VERSION = "1.1.0"
SCHEMA = "mmedge.map/1"
COG = "image/tiff; application=geotiff; profile=cloud-optimized"
EXTENSIONS = tuple(
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in ("classification/v1.1.0", "file/v2.1.0", "processing/v1.2.0", "projection/v2.0.0", "raster/v2.0.0")
)

# STAC wants a datetime or an interval. Where nobody knows when a scene was acquired the item holds this one, and says
# so in `mmedge:datetime_unknown`: wide enough to be true, and to be found by any search in time.
UNKNOWN = ("1900-01-01T00:00:00Z", "2100-01-01T00:00:00Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """A file that a map was made from: its name, without folders, and the hex sha256 of its bytes.

    A remote one has `href`, its URL without anything secret, and no sha256: only parts of it were read.
    """

    name: str
    sha256: str | None
    href: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What made a map: the model, how it ran, what it was given. Nothing about when, where or how fast.

    By sensor: `acquired` as ISO 8601, where it is known, and `lost`, the share of the map's pixels that the sensor did
    not give, by what took them; causes may overlap. `assumptions` are what was taken for granted, or done, on reading.
    """

    bundle: str
    bundle_sha256: str
    backend: str
    precision: str
    available: Availability
    inputs: tuple[InputFile, ...]
    assumptions: tuple[str, ...] = ()
    acquired: Mapping[str, str] = field(default_factory=dict)
    lost: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def tags(self) -> dict[str, str]:
        """The tags of every raster."""
        return {
            "MMEDGE_VERSION": __version__,
            "MMEDGE_BUNDLE": self.bundle,
            "MMEDGE_BUNDLE_SHA256": self.bundle_sha256,
            "MMEDGE_BACKEND": self.backend,
            "MMEDGE_PRECISION": self.precision,
            "MMEDGE_AVAILABLE": str(self.available),
            "MMEDGE_INPUTS": json.dumps([{"name": i.name, "sha256": i.sha256} for i in self.inputs]),
            "MMEDGE_ASSUMPTIONS": json.dumps(self.assumptions, ensure_ascii=False),
        }


def map_item(
    *,
    grid: Grid,
    outputs: Outputs,
    counts: MapCounts,
    legend: Sequence[LandClass],
    nodata: int,
    provenance: Provenance,
    acquired: Acquisition | None,
) -> dict[str, Any]:
    """The item of a finished map, whose rasters and quicklook lie as parts beside their final names.

    `acquired` None: unknown, and the item says so. A local CRS, whose place on the Earth nobody knows, gives a null
    geometry and no bbox.
    """
    geometry, bbox = _place(grid)
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": list(EXTENSIONS),
        "id": outputs.map.stem,
        "geometry": geometry,
        **({"bbox": bbox} if bbox else {}),
        "properties": {
            "title": f"Land cover of {', '.join(i.name for i in provenance.inputs)}",
            **when(acquired),
            **_projection(grid),
            **_processing(provenance),
            **_content(counts, legend, provenance.available.order),
        },
        "links": [
            {
                "rel": "derived_from",
                "href": i.href or f"./{i.name}",
                "title": i.name,
                **({"file:checksum": "1220" + i.sha256} if i.sha256 else {}),
            }
            for i in provenance.inputs
        ],
        "assets": _assets(grid, outputs, legend, nodata, provenance.available.order),
    }


def write_item(item: Mapping[str, Any], path: str | Path) -> None:
    """Write an item as JSON in UTF-8."""
    text = json.dumps(item, indent=1, ensure_ascii=False, allow_nan=False)
    Path(path).write_text(text + "\n", encoding="utf-8", newline="\n")


def _place(grid: Grid) -> tuple[dict[str, Any] | None, list[float] | None]:
    try:
        return footprint(grid)
    except GeoreferenceError:
        return None, None


def when(acquired: Acquisition | None) -> dict[str, Any]:
    """An instant is `datetime`; a day or a span is an interval, for its noon or midnight would be an invention."""
    if acquired is None:
        start, end = UNKNOWN
        return {"datetime": None, "start_datetime": start, "end_datetime": end, "mmedge:datetime_unknown": True}
    source = {"mmedge:datetime_source": acquired.source}
    if acquired.start == acquired.end:
        return {"datetime": rfc3339(acquired.start), **source}
    return {
        "datetime": None,
        "start_datetime": rfc3339(acquired.start),
        "end_datetime": rfc3339(acquired.end),
        **source,
    }


def _projection(grid: Grid) -> dict[str, Any]:
    crs = CRS.from_wkt(grid.crs)
    authority = crs.to_authority(confidence_threshold=100)
    named: dict[str, Any] = (
        {"proj:code": ":".join(authority)}
        if authority
        else {"proj:code": None, "proj:wkt2": crs.to_wkt(version="WKT2_2019")}
    )
    return {**named, "proj:shape": list(grid.shape), "proj:transform": list(grid.transform)}


def _processing(provenance: Provenance) -> dict[str, Any]:
    return {
        "processing:level": "L4",
        "processing:lineage": f"Classified by {provenance.bundle} from {provenance.available}",
        "processing:software": {"mmedge": __version__, provenance.bundle: f"sha256:{provenance.bundle_sha256}"},
        "mmedge:schema": SCHEMA,
        "mmedge:bundle": {"name": provenance.bundle, "sha256": provenance.bundle_sha256},
        "mmedge:backend": provenance.backend,
        "mmedge:precision": provenance.precision,
        "mmedge:available": list(provenance.available),
        "mmedge:sensors": {
            name: {"acquired": provenance.acquired.get(name), "lost_share": dict(provenance.lost.get(name, {}))}
            for name in provenance.available
        },
        "mmedge:assumptions": list(provenance.assumptions),
    }


def _content(counts: MapCounts, legend: Sequence[LandClass], order: tuple[str, ...]) -> dict[str, Any]:
    """Shares of pixels: nodata of all, classes and sensors of those that have a class; areas in hectares."""
    mapped = max(counts.mapped, 1)
    sensors = {str(Availability(bits, order)): round(n / mapped, 6) for bits, n in sorted(counts.sensors.items())}
    classes = {c.name: round(counts.classes[c.value] / mapped, 6) for c in legend if c.value in counts.classes}
    areas = {c.name: round(counts.area_m2[c.value] / 1e4, 4) for c in legend if c.value in counts.area_m2}
    return {
        "mmedge:pixels": counts.pixels,
        "mmedge:nodata_share": round(counts.nodata / counts.pixels, 6),
        "mmedge:class_share": classes,
        **({"mmedge:class_area_ha": areas} if areas else {}),
        "mmedge:sensors_share": sensors,
    }


def _assets(
    grid: Grid, outputs: Outputs, legend: Sequence[LandClass], nodata: int, order: tuple[str, ...]
) -> dict[str, Any]:
    resolution = _resolution(grid)

    def raster(path: Path, title: str, role: str, nodata: int, **own: Any) -> dict[str, Any]:
        common = {"type": COG, "title": title, "roles": ["data", role], "data_type": "uint8", "nodata": nodata}
        return {**_file(path), **common, **resolution, **own}

    assets = {
        "map": raster(
            outputs.map, "Class of each pixel", "classification", nodata, **{"classification:classes": _classes(legend)}
        ),
        "confidence": raster(
            outputs.confidence, "Probability of that class", "confidence", CONFIDENCE_NODATA, unit="%"
        ),
        "sensors": raster(
            outputs.sensors,
            "Sensors that each pixel was made from",
            "sensors",
            SENSORS_NODATA,
            **{"classification:bitfields": _bitfields(order)},
        ),
    }
    if outputs.probs:
        scale = {"raster:scale": 1 / PROBS_STEPS, "raster:offset": 0, "bands": [{"name": c.name} for c in legend]}
        assets["probs"] = raster(outputs.probs, "Class probabilities", "probabilities", PROBS_NODATA, **scale)
    if outputs.quicklook:
        quicklook = {"type": "image/png", "title": "Picture of the map", "roles": ["overview"]}
        assets["quicklook"] = {**_file(outputs.quicklook), **quicklook}
    return assets


def _file(path: Path) -> dict[str, Any]:
    part = part_of(path)
    return {"href": f"./{path.name}", "file:size": part.stat().st_size, "file:checksum": checksum(part)}


def _resolution(grid: Grid) -> dict[str, Any]:
    """8 bits say little, but the raster extension wants a field where the ground resolution is not known."""
    try:
        along_row, along_col = pixel_size_m(grid)
    except GeoreferenceError:
        return {"raster:bits_per_sample": 8}
    return {"raster:spatial_resolution": round((along_row * along_col) ** 0.5, 3)}


def _classes(legend: Sequence[LandClass]) -> list[dict[str, Any]]:
    return [
        {"value": c.value, "name": c.name, "description": c.name, "color_hint": bytes(c.color).hex().upper()}
        for c in legend
    ]


def _bitfields(order: tuple[str, ...]) -> list[dict[str, Any]]:
    answers = [{"value": 0, "description": "not used"}, {"value": 1, "description": "used"}]
    return [
        {"offset": i, "length": 1, "name": name, "description": f"Made from {name}", "classes": answers}
        for i, name in enumerate(order)
    ]
