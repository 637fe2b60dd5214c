"""Flags that several verbs share, each defined once, and the small languages in which their values are written."""

from __future__ import annotations

import re
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmedge.errors import UsageError

if TYPE_CHECKING:
    from mmedge.geo_io.gather import SceneOptions
    from mmedge.geo_io.location import Location
    from mmedge.geo_io.speckle import Speckle as SpeckleFilter

OptionalPath = Path | None
Scene = Annotated[
    str | None,
    typer.Argument(
        help="A multi-band GeoTIFF with `sensor:band` names, or a STAC Item: a path, or an https or s3 URL.",
        show_default=False,
    ),
]
Source = Annotated[
    list[str] | None, typer.Option("--source", metavar="SENSOR=FILE", help="One file of a sensor; repeat for more.")
]
Bands = Annotated[
    list[str] | None,
    typer.Option("--bands", metavar="SENSOR=B1,B2,...", help="Names of a sensor's bands, in file order."),
]
Scale = Annotated[
    list[str] | None,
    typer.Option(
        "--scale", metavar="SENSOR=SCALE[,OFFSET]", help="value = SCALE * DN + OFFSET, over the file's own tags."
    ),
]
Crs = Annotated[
    list[str] | None,
    typer.Option("--crs", metavar="SENSOR=CRS", help="Where a sensor's files lie, if they do not say so: EPSG:32718."),
]
FillVoids = Annotated[
    int,
    typer.Option(
        "--fill-voids", metavar="CELLS", min=0, max=32, help="Interpolate a point cloud's ground over holes this wide."
    ),
]
Unit = Annotated[
    list[str] | None, typer.Option("--unit", metavar="SENSOR=UNIT", help="Radar as stored: dB, linear or amplitude.")
]
Reference = Annotated[
    str | None, typer.Option("--reference", metavar="SENSOR", help="Whose grid the map is made on.", show_default=False)
]
Item = Annotated[
    str | None, typer.Option("--item", metavar="ID", help="Which item of a STAC ItemCollection.", show_default=False)
]
AllowRemote = Annotated[
    bool, typer.Option("--allow-remote", help="Let a STAC Item point outside its own folder, and to URLs.")
]
Available = Annotated[
    list[str] | None,
    typer.Option(
        "--available",
        metavar="SENSORS",
        envvar="MMEDGE_AVAILABLE",
        help="Use at most these sensors, e.g. sar,optical. Default: what the pixels offer.",
    ),
]
Output = Annotated[
    OptionalPath, typer.Option("-o", "--output", help="Default: <scene>_map.tif in this folder.", show_default=False)
]
Model = Annotated[
    str, typer.Option("-m", "--model", envvar="MMEDGE_MODEL", help="A built-in model, or a bundle folder.")
]
Backend = Annotated[
    str,
    typer.Option("--backend", envvar="MMEDGE_BACKEND", help="auto, or what runs the graphs: openvino, tensorrt, ..."),
]
StrictDevice = Annotated[bool, typer.Option("--strict-device", help="Fail rather than leave a GPU unused.")]
Precision = Annotated[str, typer.Option("--precision", envvar="MMEDGE_PRECISION", help="fp32, bf16, fp16 or int8.")]
Threads = Annotated[
    int, typer.Option("--threads", envvar="MMEDGE_THREADS", min=0, help="0: all that this process may use.")
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        "--max-memory",
        metavar="SIZE",
        envvar="MMEDGE_MAX_MEMORY",
        help="What the process may take, e.g. 700M or 1.5G; tiles, threads and caches are made to fit.",
        show_default=False,
    ),
]
Tune = Annotated[
    bool,
    typer.Option(
        "--tune", envvar="MMEDGE_TUNE", help="Tiles and batches as fast as this machine can; measured once, remembered."
    ),
]
Mask = Annotated[
    list[str] | None,
    typer.Option("--mask", metavar="SENSOR=FILE", help="Do not use the sensor where this raster is not 0."),
]
Screen = Annotated[
    bool, typer.Option("--screen", help="Leave out dead lines, stripes, saturation and other sensor failures.")
]
Speckle = Annotated[
    str | None,
    typer.Option("--speckle", metavar="lee[,SIZE[,LOOKS]]", help="Filter radar speckle (5 pixels), or `refined-lee`."),
]
Labels = Annotated[
    OptionalPath,
    typer.Option("--labels", help="Reference classes: a raster, or polygons or points.", show_default=False),
]
Field = Annotated[
    str | None,
    typer.Option("--field", help="The attribute of a vector file that holds the class.", show_default=False),
]
Bbox = Annotated[str | None, typer.Option("--bbox", metavar="XMIN,YMIN,XMAX,YMAX", help="In the scene's CRS.")]
Aoi = Annotated[OptionalPath, typer.Option("--aoi", help="Polygons to map, in any CRS.")]
Probs = Annotated[bool, typer.Option("--probs", help="Class probabilities too.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be read and written; touch nothing.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress, no notes.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say more.")]
Strict = Annotated[bool, typer.Option("--strict", help="A warning makes the exit code 1.")]


def commas(values: list[str] | None) -> list[str]:
    """Repeated or comma-joined values as one list."""
    return [part.strip() for value in values or [] for part in value.split(",") if part.strip()]


def assignments(flag: str, values: list[str] | None) -> dict[str, list[str]]:
    """`SENSOR=a,b` flags as lists by sensor; the same sensor may come again."""
    from mmedge.geo_io.bands import sensor_name

    found: dict[str, list[str]] = {}
    for value in values or []:
        sensor, equals, rest = value.partition("=")
        if not equals or not sensor or not rest:
            raise UsageError(f"`{flag} {value}` is not SENSOR=VALUE", hint=f"e.g. {flag} optical=...")
        found.setdefault(sensor_name(sensor), []).extend(commas([rest]))
    return found


def place(text: str | None) -> Location | None:
    """A scene as it was typed: a path or a URL."""
    from mmedge.geo_io.location import locate

    return None if text is None else locate(text)


def scene_options(
    *,
    source: list[str] | None = None,
    bands: list[str] | None = None,
    crs: list[str] | None = None,
    fill_voids: int = 0,
    scale: list[str] | None = None,
    unit: list[str] | None = None,
    reference: str | None = None,
    item: str | None = None,
    allow_remote: bool = False,
    mask: list[str] | None = None,
    screen: bool = False,
    speckle: str | None = None,
) -> SceneOptions:
    """What the flags say about a scene."""
    from mmedge.geo_io.gather import SceneOptions
    from mmedge.geo_io.location import locate

    return SceneOptions(
        sources={k: [locate(p) for p in paths] for k, paths in assignments("--source", source).items()},
        bands=assignments("--bands", bands),
        crs={k: ",".join(v) for k, v in assignments("--crs", crs).items()},
        fill_voids=fill_voids,
        scale={k: _scale(k, v) for k, v in assignments("--scale", scale).items()},
        unit={k: v[-1] for k, v in assignments("--unit", unit).items()},
        reference=reference,
        item=item,
        allow_remote=allow_remote,
        masks={k: [locate(p) for p in paths] for k, paths in assignments("--mask", mask).items()},
        screen=screen,
        speckle=_speckle(speckle) if speckle else None,
    )


def _scale(sensor: str, given: list[str]) -> tuple[float, float]:
    try:
        numbers = [float(v) for v in given]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or not all(map(isfinite, numbers)):
        raise UsageError(f"`--scale {sensor}={','.join(given)}` is not SCALE[,OFFSET]", hint="--scale optical=1e-4")
    scale, offset = [*numbers, 0.0][:2]
    return scale, offset


def _speckle(text: str) -> SpeckleFilter:
    from mmedge.geo_io.speckle import Speckle

    match = re.fullmatch(r"(lee|refined-lee)(?:,(\d+)(?:,(\d+(?:\.\d+)?))?)?", text)
    if not match:
        raise UsageError(
            f"`--speckle {text}` is not lee[,SIZE[,LOOKS]], or refined-lee[,7[,LOOKS]]",
            hint="--speckle lee, or lee,7,4.4, or refined-lee",
        )
    kind, size, looks = match.groups()
    usual = 5 if kind == "lee" else 7
    return Speckle(kind=kind, size=int(size or usual), looks=float(looks) if looks else None)  # type: ignore[arg-type]


def size(text: str | None) -> int | None:
    """`700M`, `1.5G`, `734003200` as bytes; K, M and G are powers of 1024."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match or not float(match[1]):
        raise UsageError(f"`--max-memory {text}` is no size", hint="--max-memory 700M, or 1.5G")
    return int(float(match[1]) * 1024 ** " KMG".index(match[2].upper() or " "))


def bounds(text: str | None) -> tuple[float, float, float, float] | None:
    """`xmin,ymin,xmax,ymax` as numbers."""
    if text is None:
        return None
    try:
        xmin, ymin, xmax, ymax = (float(v) for v in text.split(","))
    except ValueError:
        raise UsageError(
            f"`--bbox {text}` is not xmin,ymin,xmax,ymax", hint="four numbers in the scene's CRS"
        ) from None
    if not all(map(isfinite, (xmin, ymin, xmax, ymax))):
        raise UsageError(f"`--bbox {text}` is not finite", hint="four numbers in the scene's CRS")
    if xmin >= xmax or ymin >= ymax:
        raise UsageError(f"`--bbox {text}` is empty: xmin < xmax and ymin < ymax are wanted", hint="swap the corners")
    return xmin, ymin, xmax, ymax
