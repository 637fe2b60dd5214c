"""model.json of every shipped bundle against the STAC item and MLM 1.5.2 schemas, offline."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

jsonschema = pytest.importorskip("jsonschema")
pystac = pytest.importorskip("pystac")
from referencing import Registry, Resource  # noqa: E402
from referencing.jsonschema import DRAFT7  # noqa: E402

from mmedge.bundle import builtin_bundles, open_bundle  # noqa: E402

EXTENSIONS = Path(__file__).parent / "schemas"
CORE = Path(pystac.__file__).parent / "validation/jsonschemas"
STAC = "https://schemas.stacspec.org/v1.1.0"


def registry() -> Registry[Any]:
    """Every schema under its address. Those of extensions lie about theirs now and then, so `$id` is overwritten."""
    found: dict[str, Any] = {}
    for path in EXTENSIONS.glob("*.json"):
        name, version = path.stem.rsplit("-v", 1)
        url = f"https://stac-extensions.github.io/{name}/v{version}/schema.json"
        found[url] = {**json.loads(path.read_text(encoding="utf-8")), "$id": url}
    for path in CORE.rglob("*.json"):
        schema = json.loads(path.read_text(encoding="utf-8"))
        folder = schema.get("$id", f"{STAC}/item-spec/json-schema/").rsplit("/", 1)[0]
        found[f"{folder}/{path.name}"] = {**schema, "$id": f"{folder}/{path.name}"}
    resources = [(url, Resource(contents=schema, specification=DRAFT7)) for url, schema in found.items()]
    return Registry().with_resources(resources + [(f"{url}#", resource) for url, resource in resources])


def errors(item: dict[str, Any]) -> list[str]:
    schemas = registry()
    urls = [f"{STAC}/item-spec/json-schema/item.json", *item["stac_extensions"]]
    return [
        f"{url}: {list(e.absolute_path)}: {e.message[:300]}"
        for url in urls
        for e in jsonschema.Draft7Validator(schemas[url].contents, registry=schemas).iter_errors(item)
    ]


@pytest.mark.parametrize("name", builtin_bundles())
def test_model_json_is_a_valid_mlm_item(name: str) -> None:
    assert errors(open_bundle(name).item) == []


def test_there_is_a_default_bundle() -> None:
    assert "mamol-terra" in builtin_bundles()


@pytest.mark.parametrize("broken", ["mlm:name", "mlm:input", "mlm:output", "mlm:tasks"])
def test_the_schema_sees_what_is_missing(broken: str) -> None:
    item = copy.deepcopy(open_bundle().item)
    del item["properties"][broken]
    assert errors(item)


def test_the_schema_sees_a_wrong_colour() -> None:
    item = copy.deepcopy(open_bundle().item)
    item["properties"]["mlm:output"][0]["classification:classes"][0]["color_hint"] = "blue"
    assert errors(item)
