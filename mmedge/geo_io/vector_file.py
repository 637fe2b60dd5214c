"""Features of a vector file that somebody gives: areas of interest, labels. Needs the extra `vector`.

Only formats that hold their features themselves are opened, and a file is judged by how it begins: OGR's VRT and others
can point anywhere on the disk or the network, whatever the file's name is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rasterio.crs import CRS

from mmedge.errors import UsageError
from mmedge.extras import need

GEOPACKAGE, SHAPEFILE, FLATGEOBUF = b"SQLite format 3\0", b"\x00\x00\x27\x0a", b"fgb\x03"
BOM = b"\xef\xbb\xbf"
HINT = "GeoPackage, GeoJSON, Shapefile or FlatGeobuf: `ogr2ogr out.gpkg FILE` makes one"


@dataclass(frozen=True, slots=True)
class Features:
    """`geometries`: shapely's, 2D, None where a feature has none; `columns`: attribute -> its value of each feature."""

    geometries: Any
    columns: dict[str, Any]
    crs: CRS


def read_features(path: Path, *, attributes: bool = True) -> Features:
    """All features of a file, without `columns` where no attributes are asked for.

    Raises UsageError where it is missing, of another format, damaged, or has no CRS.
    """
    if not path.is_file():
        raise UsageError(f"no such file: `{path}`", hint=HINT)
    if not _holds_its_features(path):
        raise UsageError(f"`{path}` is no vector file that mmedge reads", hint=HINT)
    pyogrio, shapely = need("pyogrio"), need("shapely")
    try:
        meta, _, found, values = pyogrio.raw.read(str(path), columns=None if attributes else [], force_2d=True)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as err:
        raise UsageError(f"cannot read `{path}`: {err}", hint=HINT) from err
    if found is None or not len(found):
        raise UsageError(f"`{path}` holds no features", hint=f"ogrinfo -al -so {path}")
    if not meta["crs"]:
        raise UsageError(f"`{path}` has no CRS", hint=f"ogr2ogr -a_srs EPSG:4326 out.gpkg {path}")
    columns = dict(zip(meta["fields"], values, strict=True))
    return Features(shapely.from_wkb(found), columns, CRS.from_user_input(meta["crs"]))


def _holds_its_features(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(64)
    geojson = start.removeprefix(BOM).lstrip().startswith(b"{")
    return geojson or start.startswith((GEOPACKAGE, SHAPEFILE, FLATGEOBUF))
