"""`mmedge info`: what a scene or a model holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmedge.cli import options as o
from mmedge.cli.console import Console

if TYPE_CHECKING:
    from mmedge.geo_io.location import Location

NAME = "info"


def run(
    thing: Annotated[
        str | None, typer.Argument(help="A scene, a built-in model, or a bundle folder.", show_default=False)
    ] = None,
    source: o.Source = None,
    bands: o.Bands = None,
    crs: o.Crs = None,
    fill_voids: o.FillVoids = 0,
    scale: o.Scale = None,
    unit: o.Unit = None,
    reference: o.Reference = None,
    failures: Annotated[
        bool, typer.Option("--failures", help="Look for sensor failures too; reads the whole scene twice.")
    ] = False,
    item: o.Item = None,
    allow_remote: o.AllowRemote = False,
    mask: o.Mask = None,
    model: Annotated[
        str | None,
        typer.Option(
            "-m", "--model", help="Say how far the scene lies from what this model knows.", show_default=False
        ),
    ] = None,
    as_json: o.Json = False,
    strict: o.Strict = False,
) -> int:
    """Describe a scene (sensors, bands, grid, share of valid pixels) or a model (inputs, classes, accuracy).

    Example: mmedge info scene.tif
    """
    from pathlib import Path

    from mmedge.bundle import DEFAULT, builtin_bundles
    from mmedge.errors import UsageError

    console = Console()
    if thing is None and not source:
        raise UsageError("nothing to describe", hint=f"mmedge info scene.tif, or mmedge info {DEFAULT}")
    if thing is not None and (thing in builtin_bundles() or (Path(thing) / "model.json").exists()):
        document = describe_bundle(thing)
    else:
        options = o.scene_options(
            source=source,
            bands=bands,
            crs=crs,
            fill_voids=fill_voids,
            scale=scale,
            unit=unit,
            reference=reference,
            item=item,
            allow_remote=allow_remote,
            mask=mask,
        )
        document = describe_scene(o.place(thing), options, console, failures=failures, model=model)
    console.data(document, _text(document), as_json=as_json)
    return 1 if strict and console.warned else 0


def describe_bundle(name: str) -> dict[str, Any]:
    """What a bundle wants, gives and is worth."""
    from mmedge.bundle import open_bundle

    bundle = open_bundle(name)
    p = bundle.item["properties"]
    return {
        "schema": "mmedge.info.bundle/1",
        "model": bundle.name,
        "sha256": bundle.sha256,
        "description": p.get("description", ""),
        "license": p.get("license", ""),
        "sensors": {m.name: {"bands": list(m.bands), "unit": m.unit, "gsd_m": m.gsd_m} for m in bundle.modalities},
        "classes": {str(c.value): c.name for c in bundle.classes},
        "precisions": list(bundle.precisions()),
        "parameters": p.get("mlm:total_parameters"),
        "accuracy": p.get("mmedge:accuracy", {}),
    }


def describe_scene(
    path: Location | None, options: Any, console: Console, *, failures: bool, model: str | None = None
) -> dict[str, Any]:
    """What a scene holds, sensor by sensor: shares valid, shares lost and to what, shares `model` does not know."""
    from mmedge.geo_io.scene import open_scene
    from mmedge.geo_io.survey import failure_shares, shares

    with open_scene(path, None, options) as scene:
        for warning in scene.warnings:
            console.warn(warning)
        seen = shares(scene)
        failed = failure_shares(scene) if failures else {}
        return {
            "schema": "mmedge.info.scene/1",
            "scene": scene.name,
            "rows": scene.grid.rows,
            "cols": scene.grid.cols,
            "crs": _crs_name(scene.grid.crs),
            "transform": list(scene.grid.transform),
            "sensors": {
                name: {
                    "bands": list(source.info.bands),
                    "unit": source.info.unit,
                    "gsd_m": round(source.info.gsd_m, 3),
                    "acquired": str(source.info.acquired) if source.info.acquired else None,
                    "valid_share": round(seen[name][0], 4),
                    "lost_share": {k: round(v, 5) for k, v in (seen[name][1] | failed.get(name, {})).items()},
                    "files": [file.name for file in source.info.files],
                    "assumptions": list(source.info.assumptions),
                }
                for name, source in scene.sources.items()
            },
            **({"strange": _strange(path, options, console, model)} if model else {}),
        }


def _strange(path: Location | None, options: Any, console: Console, model: str) -> dict[str, float]:
    """Share of each sensor that looks like nothing in the training data of a model."""
    from mmedge.bundle import open_bundle
    from mmedge.edge.domain import strange_shares, warnings_of
    from mmedge.geo_io.scene import open_scene

    bundle = open_bundle(model)
    with open_scene(path, bundle.modalities, options) as scene:
        shares = strange_shares(scene, bundle)
    if not shares:
        console.note(f"note: `{bundle.name}` does not say what it was trained on")
    for text in warnings_of(shares, bundle.name):
        console.warn(text)
    return {name: round(share, 4) for name, share in shares.items()}


def _crs_name(wkt: str) -> str:
    from rasterio.crs import CRS

    crs = CRS.from_wkt(wkt)
    return f"EPSG:{code}" if (code := crs.to_epsg()) else str(crs.to_wkt())


def _text(document: dict[str, Any], indent: str = "") -> str:
    lines = []
    for key, value in document.items():
        if key == "schema":
            continue
        if isinstance(value, dict) and value:
            lines += [f"{indent}{key}:", _text(value, indent + "  ")]
        else:
            shown = ", ".join(str(v) for v in value) if isinstance(value, list) else value
            lines.append(f"{indent}{key}: {'-' if shown in (None, '', {}) else shown}")
    return "\n".join(lines)
