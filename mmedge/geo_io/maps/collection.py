"""The maps of a folder as a STAC 1.1 collection: `collection.json`, and a mosaic for each CRS.

Made from the maps' items alone, so that it is the same whoever made the maps, when and where. The items are not
touched: their checksums are known to the batch that wrote them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmedge.errors import UsageError
from mmedge.files import refuse_unwritable, written_together
from mmedge.geo_io.maps.mosaic import mosaics
from mmedge.geo_io.maps.stac import EXTENSIONS, SCHEMA, STAC_VERSION

NAME = "collection.json"
VRT = "application/xml"
EVERYWHERE = [-180.0, -90.0, 180.0, 90.0]
OWN = ("href", "file:size", "file:checksum", "raster:spatial_resolution", "raster:bits_per_sample")  # of each map


def read_items(folder: Path) -> list[dict[str, Any]]:
    """The items of the maps that lie in a folder, by id. UsageError where there is none."""
    found = [item for path in sorted(folder.glob("*.json")) if (item := _item(path))]
    if not found:
        raise UsageError(f"`{folder}` holds no map with its item", hint=f"mmedge batch scenes/ --out {folder}")
    return sorted(found, key=lambda item: str(item["id"]))


def write_catalog(folder: Path, *, name: str = "maps", overwrite: bool = False) -> tuple[Path, ...]:
    """Write the collection `name` of a folder's maps and the mosaics that it names; returns them, the collection last.

    Raises UsageError where there is no map, OutputError where the files are there already or cannot be written.
    """
    items = read_items(folder)
    rasters = mosaics(items)
    texts = {**rasters, NAME: _text(collection(items, name=name, rasters=tuple(rasters)))}
    targets = tuple(folder / file for file in texts)
    stale = [path for path in folder.glob("mosaic_*.vrt") if path not in targets]
    refuse_unwritable(targets, overwrite=overwrite)
    with written_together(targets) as parts:
        for part, text in zip(parts, texts.values(), strict=True):
            part.write_text(text, encoding="utf-8", newline="\n")
    for path in stale if overwrite else ():
        path.unlink()
    return targets


def collection(items: Sequence[Mapping[str, Any]], *, name: str, rasters: Sequence[str]) -> dict[str, Any]:
    """The collection of some items; `rasters` are the file names of its mosaics."""
    properties = [item["properties"] for item in items]
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": [url for url in EXTENSIONS if "/file/" not in url and "/raster/" not in url],
        "id": name,
        "title": "Land cover maps",
        "description": f"{len(items)} maps made by mmedge. Each item says from which files, by which model, and of "
        "which sensors every share of its pixels was made.",
        "license": "other",
        "extent": {
            "spatial": {"bbox": [_bbox([item["bbox"] for item in items if item.get("bbox")])]},
            "temporal": {"interval": [_interval(properties)]},
        },
        "summaries": _summaries(properties),
        "item_assets": _item_assets([item["assets"] for item in items]),
        "assets": {Path(file).stem: {"href": f"./{file}", "type": VRT, "roles": ["data"]} for file in rasters},
        "links": [
            {"rel": "root", "href": f"./{NAME}", "type": "application/json"},
            *({"rel": "item", "href": f"./{i['id']}.json", "type": "application/geo+json"} for i in items),
        ],
        "mmedge:class_area_ha": _areas(properties),
    }


def _item(path: Path) -> dict[str, Any] | None:
    """The item of a map; None for a file that is something else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    properties = document.get("properties") if isinstance(document, dict) else None
    ours = isinstance(properties, dict) and properties.get("mmedge:schema") == SCHEMA
    return document if ours and document.get("type") == "Feature" else None


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _bbox(boxes: Sequence[Sequence[float]]) -> list[float]:
    """Around all; from -180 to 180 where one of them crosses the antimeridian."""
    if not boxes or any(west > east for west, _, east, _ in boxes):
        west, east = EVERYWHERE[0], EVERYWHERE[2]
    else:
        west, east = min(b[0] for b in boxes), max(b[2] for b in boxes)
    souths, norths = [b[1] for b in boxes], [b[3] for b in boxes]
    return [west, min(souths, default=EVERYWHERE[1]), east, max(norths, default=EVERYWHERE[3])]


def _interval(properties: Iterable[Mapping[str, Any]]) -> list[str | None]:
    """From the first acquisition to the last; open where nobody knows one."""
    known = [p for p in properties if not p.get("mmedge:datetime_unknown")]
    starts = [p.get("start_datetime") or p["datetime"] for p in known]
    ends = [p.get("end_datetime") or p["datetime"] for p in known]
    return [min(starts, default=None), max(ends, default=None)]


def _summaries(properties: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    def every(key: str) -> list[Any]:
        found = {json.dumps(p[key], sort_keys=True): p[key] for p in properties if p.get(key) is not None}
        return [found[text] for text in sorted(found)]

    keys = ("proj:code", "processing:level", "processing:software", "mmedge:bundle", "mmedge:precision")
    return {key: values for key in keys if (values := every(key))}


def _item_assets(assets: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """What the assets of one name have in common."""
    found = {}
    for name in sorted({name for each in assets for name in each}):
        first, *others = [each[name] for each in assets if name in each]
        found[name] = {
            key: value
            for key, value in first.items()
            if key not in OWN and all(other.get(key) == value for other in others)
        }
    return found


def _areas(properties: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Hectares of each class in all maps together; where maps overlap it counts twice."""
    total: Counter[str] = Counter()
    for p in properties:
        total.update(p.get("mmedge:class_area_ha", {}))
    return {name: round(total[name], 4) for name in sorted(total)}
