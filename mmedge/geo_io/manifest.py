"""Scenes described by a STAC Item: which local raster holds which band of which sensor."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from mmedge.errors import SceneError
from mmedge.geo_io.bands import split_description

_RASTER_TYPES = ("image/tiff", "image/jp2", "image/vnd.stac.geotiff")


@dataclass(frozen=True, slots=True)
class AssetBand:
    """What an item says of one band of an asset."""

    sensor: str | None
    name: str | None
    scale: float | None
    offset: float


@dataclass(frozen=True, slots=True)
class Asset:
    """One local raster file and its bands, in file order."""

    path: Path
    bands: tuple[AssetBand, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The raster assets of an item. `acquired` is an ISO 8601 date-time or None."""

    name: str
    assets: tuple[Asset, ...]
    acquired: str | None
    warnings: tuple[str, ...] = ()


def read_manifest(path: Path, item_id: str | None = None) -> Manifest:
    """Read a STAC Item, or the one called `item_id` of an ItemCollection.

    Assets must lie in the file's folder or below: anything else is refused, not fetched.
    """
    item = read_json(path)
    if isinstance(item, dict) and item_id is not None and item.get("type") == "FeatureCollection":
        item = next((i for i in item.get("features", ()) if isinstance(i, dict) and i.get("id") == item_id), None)
    if not isinstance(item, dict) or item.get("type") != "Feature" or not isinstance(item.get("assets"), dict):
        raise SceneError(f"`{path}` is not a STAC Item", hint="give a raster, or an item with assets")
    assets = [_asset(path, key, asset) for key, asset in item["assets"].items() if _is_band_data(asset)]
    if not assets:
        raise SceneError(f"`{path}` has no raster asset with the role `data`", hint="mmedge infer --source sensor=file")
    return Manifest(
        name=str(item.get("id") or path.stem), assets=tuple(assets), acquired=item.get("properties", {}).get("datetime")
    )


def read_json(path: Path) -> Any:
    """A JSON document; SceneError where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SceneError(f"no such file: `{path}`", hint="check the path") from None
    except (OSError, ValueError) as err:
        raise SceneError(f"`{path}` cannot be read as JSON: {err}", hint="give a raster or a STAC Item") from None


def _is_band_data(asset: dict[str, Any]) -> bool:
    kind = str(asset.get("type", "")).split(";")[0].strip()
    roles = asset.get("roles") or ["data"]
    suffix = Path(urlparse(str(asset.get("href", ""))).path).suffix.lower()
    return (kind in _RASTER_TYPES or suffix in (".tif", ".tiff", ".jp2")) and not {
        "thumbnail",
        "overview",
        "visual",
    } & set(roles)


def _asset(item: Path, key: str, asset: dict[str, Any]) -> Asset:
    listed = asset.get("bands") or asset.get("eo:bands") or asset.get("raster:bands") or [{}]
    raster = asset.get("raster:bands") or listed
    bands = []
    for i, band in enumerate(listed):
        facts = {**(raster[i] if i < len(raster) else {}), **band}
        said = facts.get("name") or facts.get("common_name") or facts.get("eo:common_name")
        sensor, name = split_description(said or (key if len(listed) == 1 else None))
        if sensor is None and facts.get("common_name"):
            sensor, name = split_description(facts["common_name"])
        scale = facts.get("scale", facts.get("raster:scale"))
        bands.append(AssetBand(sensor, name, scale, facts.get("offset", facts.get("raster:offset")) or 0.0))
    return Asset(_local(item, str(asset["href"])), tuple(bands))


def _local(item: Path, href: str) -> Path:
    url = urlparse(href)
    root = item.resolve().parent
    path = (root / unquote(url.path)).resolve()
    if url.scheme or url.netloc or href.startswith("/vsi") or not path.is_relative_to(root):
        raise SceneError(
            f"`{item}` points outside its own folder: `{href}`",
            hint="copy the asset beside the item, or give it with `--source sensor=file`",
        )
    return path
