"""Scenes described by a STAC Item or ItemCollection: which raster holds which band of which sensor.

An item is not trusted: its assets lie in its own folder or below, or its reader says that they may lie elsewhere.
"""

from __future__ import annotations

import json
import posixpath
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from mmedge.errors import SceneError, UsageError
from mmedge.geo_io.acquired import Acquisition, parse_acquisition
from mmedge.geo_io.bands import split_description
from mmedge.geo_io.location import SCHEMES, Location, RemoteFile, without_secrets

_RASTER_TYPES = ("image/tiff", "image/jp2", "image/vnd.stac.geotiff")
_NO_DATA_ROLES = {"thumbnail", "overview", "visual"}

MAX_JSON_BYTES = 16 << 20
FETCH_TIMEOUT_S, FETCH_TRIES = 30.0, 3


@dataclass(frozen=True, slots=True)
class AssetBand:
    """What an item says of one band of an asset."""

    sensor: str | None
    name: str | None
    scale: float | None
    offset: float


@dataclass(frozen=True, slots=True)
class Asset:
    """One raster file and its bands, in file order."""

    path: Location
    bands: tuple[AssetBand, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The raster assets of an item, and when it says that they were acquired."""

    name: str
    assets: tuple[Asset, ...]
    acquired: Acquisition | None
    warnings: tuple[str, ...] = ()


def read_manifest(path: Location, *, allow_remote: bool = False, item: str | None = None) -> Manifest:
    """Read a STAC Item, or the item `item` (its id) of an ItemCollection.

    Assets must lie in the item's folder or below; `allow_remote` also takes http, https and s3 URLs and other local
    files. Paths of GDAL's own (/vsi...) and other schemes are refused in any case. Raises SceneError.
    """
    found = _choose(read_json(path), path, item)
    assets = found.get("assets")
    if not isinstance(assets, dict):
        raise SceneError(f"`{path}` is not a STAC Item", hint="give a raster, or an item with assets")
    rasters = [_asset(path, key, a, allow_remote) for key, a in assets.items() if isinstance(a, dict) and _is_data(a)]
    if not rasters:
        raise SceneError(f"`{path}` has no raster asset with the role `data`", hint="mmedge infer --source sensor=file")
    acquired, warnings = _acquired(found.get("properties"))
    name = item_name(found.get("id") or path.stem)
    return Manifest(name=name or "item", assets=tuple(rasters), acquired=acquired, warnings=warnings)


def item_name(item_id: object) -> str:
    """An item's id as a file's name; empty where it has none."""
    return re.sub(r"[^\w.+-]+", "_", str(item_id or "")).lstrip(".")[:120]


def read_json(path: Location) -> Any:
    """A JSON document, not longer than `MAX_JSON_BYTES`; SceneError where there is none."""
    text = _fetch(path) if isinstance(path, RemoteFile) else _read(path)
    if len(text) > MAX_JSON_BYTES:
        raise SceneError(f"`{path}` is longer than {MAX_JSON_BYTES >> 20} MiB", hint="give one item, not a catalogue")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as err:
        raise SceneError(f"`{path}` cannot be read as JSON: {err}", hint="give a raster or a STAC Item") from None


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise SceneError(f"no such file: `{path}`", hint="check the path")
    try:
        with path.open("rb") as file:
            return file.read(MAX_JSON_BYTES + 1)
    except OSError as err:
        raise SceneError(f"`{path}` cannot be read: {err.strerror}", hint="check the path") from None


def _fetch(item: RemoteFile) -> bytes:
    """The bytes behind a URL, tried a few times: servers fail for a moment."""
    if urlsplit(item.url).scheme == "s3":
        raise UsageError(f"`{item}`: an item is read from a disk or over https", hint="download the item first")
    tries = 0
    while True:
        try:
            with urllib.request.urlopen(item.url, timeout=FETCH_TIMEOUT_S) as answer:
                return bytes(answer.read(MAX_JSON_BYTES + 1))
        except (OSError, ValueError) as err:  # URLError and time-outs are OSErrors
            tries += 1
            lasting = isinstance(err, ValueError) or (isinstance(err, urllib.error.HTTPError) and err.code < 500)
            if lasting or tries == FETCH_TRIES:
                said = without_secrets(str(err))
                raise SceneError(f"cannot fetch `{item}`: {said}", hint="check the URL, or download the item") from None
            time.sleep(0.25 * 2**tries)


def _choose(document: Any, path: Location, wanted: str | None) -> dict[str, Any]:
    """The item itself, or the wanted one of a collection of items."""
    if not isinstance(document, dict) or document.get("type") not in ("Feature", "FeatureCollection"):
        raise SceneError(f"`{path}` is not a STAC Item", hint="give a raster, or an item with assets")
    items = document.get("features") if document["type"] == "FeatureCollection" else [document]
    items = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    ids = [str(item.get("id")) for item in items]
    if wanted is not None:
        items = [item for item, name in zip(items, ids, strict=True) if name == wanted]
    if len(items) != 1:
        said = f"no item `{wanted}`" if wanted is not None and not items else f"{len(items)} items, and one is a scene"
        raise SceneError(
            f"`{path}` holds {said}; there are: {', '.join(ids[:10])}{', ...' if len(ids) > 10 else ''}",
            hint=f"choose one: `--item {ids[0]}`" if ids else "give an item with assets",
        )
    return items[0]


def _acquired(properties: Any) -> tuple[Acquisition | None, tuple[str, ...]]:
    """When, and a warning where it is said in a way that nobody understands. A date is no reason to refuse pixels."""
    facts = properties if isinstance(properties, dict) else {}
    start, end = facts.get("start_datetime"), facts.get("end_datetime")
    found = facts.get("datetime") or (f"{start}/{end}" if start and end else None)
    if not isinstance(found, str) or facts.get("mmedge:datetime_unknown") is True:
        return None, ()
    try:
        return parse_acquisition(found, source="STAC item"), ()
    except UsageError:
        return None, (f"the item's date `{found}` is not understood: the map has none; `--datetime` gives one",)


def _is_data(asset: dict[str, Any]) -> bool:
    kind = str(asset.get("type", "")).split(";")[0].strip()
    roles = asset.get("roles")
    suffix = Path(re.split("[?#]", str(asset.get("href", "")))[0]).suffix.lower()
    raster = kind in _RASTER_TYPES or suffix in (".tif", ".tiff", ".jp2")
    return raster and not _NO_DATA_ROLES & {str(role) for role in (roles if isinstance(roles, list) else ())}


def _asset(item: Location, key: str, asset: dict[str, Any], allow_remote: bool) -> Asset:
    listed = _facts(asset.get("bands")) or _facts(asset.get("eo:bands")) or _facts(asset.get("raster:bands")) or [{}]
    raster = _facts(asset.get("raster:bands")) or listed
    bands = []
    for i, band in enumerate(listed):
        facts = {**(raster[i] if i < len(raster) else {}), **band}
        said = facts.get("name") or facts.get("common_name") or facts.get("eo:common_name")
        sensor, name = split_description(str(said) if said else key if len(listed) == 1 else None)
        if sensor is None and facts.get("common_name"):
            sensor, name = split_description(str(facts["common_name"]))
        scale = _number(item, facts.get("scale", facts.get("raster:scale")))
        offset = _number(item, facts.get("offset", facts.get("raster:offset")))
        bands.append(AssetBand(sensor, name, scale, offset or 0.0))
    return Asset(_place(item, str(asset.get("href", "")), allow_remote), tuple(bands))


def _facts(bands: Any) -> list[dict[str, Any]]:
    return [band if isinstance(band, dict) else {} for band in bands] if isinstance(bands, list) else []


def _number(item: Location, value: Any) -> float | None:
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return value
    raise SceneError(f"`{item}`: {value!r} is no scale or offset", hint="correct the item: a number is wanted")


def _place(item: Location, href: str, allow_remote: bool) -> Location:
    """Where an asset lies, if it may be read."""
    try:
        place, inside = _beside_url(item, href) if isinstance(item, RemoteFile) else _beside_path(item, href)
    except (ValueError, OSError, RuntimeError) as err:  # no URL, a null byte, a loop of links
        raise _refused(item, href, f"is no place of a file ({err})") from None
    if not inside and not allow_remote:
        raise SceneError(
            f"`{item}` points outside its own folder: `{without_secrets(href)}`",
            hint="add --allow-remote if you trust the item, copy the asset beside it, or use `--source sensor=file`",
        )
    return place


def _beside_path(item: Path, href: str) -> tuple[Location, bool]:
    """The place that a local item names, and whether it is in the item's folder once links are followed."""
    url = urlsplit(href)
    if url.scheme in SCHEMES:
        return RemoteFile(href), False
    if url.scheme not in ("", "file") or url.netloc or unquote(href).startswith("/vsi"):
        raise _refused(item, href, "is a kind of place that is never followed")
    root = item.resolve().parent
    path = (root / unquote(url.path)).resolve()
    return path, path.is_relative_to(root) and not url.scheme


def _beside_url(item: RemoteFile, href: str) -> tuple[Location, bool]:
    """The place that a remote item names, and whether it is below the item's own URL. Never a local file."""
    full = urljoin(item.url, href)
    mine, other = urlsplit(item.url), urlsplit(full)
    if other.scheme not in SCHEMES or href.startswith("/vsi"):
        raise _refused(item, href, "is a kind of place that is never followed")
    folder = posixpath.dirname(unquote(mine.path)).rstrip("/") + "/"
    below = posixpath.normpath(unquote(other.path)).startswith(folder)
    return RemoteFile(full), below and (mine.scheme, mine.netloc) == (other.scheme, other.netloc)


def _refused(item: Location, href: str, why: str) -> SceneError:
    return SceneError(
        f"`{item}`: the asset `{without_secrets(href)}` {why}", hint="copy it beside the item, or give it with --source"
    )
