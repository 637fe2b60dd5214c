"""A model.json that is wrong is a BundleError with a hint, whatever is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")
from small_bundle import write_bundle

from mmedge.bundle import open_bundle
from mmedge.errors import BundleError

Change = Callable[[dict[str, Any]], Any]


def tiling(**fields: Any) -> Change:
    return lambda item: item["properties"]["mmedge:tiling"].update(fields)


def modality(**fields: Any) -> Change:
    return lambda item: item["properties"]["mmedge:modalities"][0].update(fields)


def properties(**fields: Any) -> Change:
    return lambda item: item["properties"].update({f"mmedge:{key}": value for key, value in fields.items()})


def asset(**fields: Any) -> Change:
    return lambda item: item["assets"]["model"].update(fields)


def classes(*values: Any) -> Change:
    told = [{"value": v, "name": "a", "color_hint": "1f78b4"} for v in values]
    return lambda item: item["properties"]["mlm:output"][0].update({"classification:classes": told})


WRONG: dict[str, Change] = {
    "no properties": lambda item: item.pop("properties"),
    "no assets": lambda item: item.pop("assets"),
    "assets in a list": lambda item: item.update(assets=[1]),
    "an asset that is text": lambda item: item["assets"].update(more="text"),
    "no href": asset(href=None),
    "an empty href": asset(href=""),
    "an href that is a number": asset(href=3),
    "a file elsewhere": asset(href="../secret"),
    "no checksum": lambda item: item["assets"]["model"].pop("file:checksum"),
    "no output": lambda item: item["properties"].update({"mlm:output": []}),
    "no classes": classes(),
    "a class twice": classes(1, 1),
    "a class beyond a byte": classes(300),
    "a class that is text": classes("1"),
    "a class that is nodata": classes(1, 255),
    "nodata beyond a byte": properties(nodata=999),
    "no modalities": properties(modalities=[]),
    "a modality twice": lambda item: item["properties"]["mmedge:modalities"].append(
        dict(item["properties"]["mmedge:modalities"][0])
    ),
    "temperatures in a list": properties(temperature=[1.0]),
    "a temperature of 0": properties(temperature={"sar": 0.0}),
    "no pixels to align": tiling(align_px=0),
    "no pixels in a token": tiling(token_px=0),
    "a negative halo": tiling(halo_px=-2),
    "half a pixel": tiling(window_px=64.5),
    "an unknown kind": tiling(kind="foo"),
    "an unknown unit": modality(unit="foo"),
    "an unknown derivation": modality(derive="foo"),
    "pixels of no size": modality(gsd_m=float("nan")),
    "an unknown field": modality(foo=1),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_bundle(tmp_path_factory.mktemp("bundle") / "small")
    item = json.loads((folder / "model.json").read_text())
    item["assets"]["model"] = next(iter(item["assets"].values()))
    (folder / "model.json").write_text(json.dumps(item))
    open_bundle(folder)
    return folder


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_in_model_json_is_said(folder: Path, what: str) -> None:
    path = folder / "model.json"
    good = path.read_text()
    item = json.loads(good)
    WRONG[what](item)
    try:
        path.write_text(json.dumps(item))
        with pytest.raises(BundleError):
            open_bundle(folder)
    finally:
        path.write_text(good)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[]", "3"])
def test_what_is_no_model_json_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(BundleError) as caught:
        open_bundle(tmp_path)
    assert caught.value.hint
