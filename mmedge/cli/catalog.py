"""`mmedge catalog`: a folder of maps -> a STAC collection and mosaics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmedge.cli import options as o
from mmedge.cli.console import Console

NAME = "catalog"


def run(
    folder: Annotated[Path, typer.Argument(help="Folder of maps, as `mmedge batch` makes it.", show_default=False)],
    name: Annotated[str, typer.Option("--id", help="Id of the collection.")] = "maps",
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Describe the maps of a folder as a STAC collection, and lay them side by side as mosaics.

    Example: mmedge catalog maps/
    """
    from mmedge.geo_io.maps.collection import write_catalog

    written = write_catalog(folder, name=name, overwrite=overwrite)
    document = {"schema": "mmedge.catalog/1", "outputs": [str(path) for path in written]}
    Console(quiet=quiet).data(document, "\n".join(map(str, written)), as_json=as_json)
    return 0
