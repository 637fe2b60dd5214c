"""STAC collections of scenes as files: the items of an ItemCollection, or of a static catalogue on this disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from mmedge.errors import SceneError
from mmedge.geo_io.manifest import read_json


def find_items(path: Path) -> Iterator[tuple[str, Path]]:
    """(id, file) of every item in a STAC Item, ItemCollection, Catalog or Collection, in the order of the document.

    Links must lead to files below the folder of the first document. Raises SceneError where the file is none of these.
    """
    yield from _items(path.resolve().parent, path, set())


def _items(root: Path, path: Path, seen: set[Path]) -> Iterator[tuple[str, Path]]:
    document = read_json(path)
    kind = document.get("type") if isinstance(document, dict) else None
    if kind == "Feature":
        yield _id(document, path), path
    elif kind == "FeatureCollection":
        for item in document.get("features", ()):
            yield _id(item, path), path
    elif kind in ("Catalog", "Collection"):
        for child in _linked(root, path, document):
            if child not in seen:
                seen.add(child)
                yield from _items(root, child, seen)
    else:
        raise SceneError(f"`{path}` is no STAC Item, ItemCollection, Catalog or Collection", hint="mmedge batch FOLDER")


def _id(item: Any, path: Path) -> str:
    if not isinstance(item, dict) or not item.get("id"):
        raise SceneError(f"`{path}` holds an item without an id", hint="every STAC Item has one")
    return str(item["id"])


def _linked(root: Path, path: Path, document: dict[str, Any]) -> Iterator[Path]:
    for link in document.get("links", ()):
        if link.get("rel") not in ("item", "child"):
            continue
        url = urlparse(str(link.get("href", "")))
        target = (path.resolve().parent / unquote(url.path)).resolve()
        if url.scheme or url.netloc or not target.is_relative_to(root):
            raise SceneError(
                f"`{path}` points outside its own folder: `{link.get('href')}`",
                hint="copy the catalogue with its items",
            )
        yield target
