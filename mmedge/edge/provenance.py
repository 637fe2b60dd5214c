"""What a map was made from: the files of the scene, the model, the sensors and what took their pixels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mmedge.bundle import checksum
from mmedge.edge.request import Request
from mmedge.edge.runtime.session import Engines
from mmedge.geo_io.maps.stac import InputFile, Provenance
from mmedge.geo_io.scene import Scene
from mmedge.modality import Availability


def input_files(scene: Scene) -> tuple[InputFile, ...]:
    """Name and sha256 of every input file; no sha256 of a remote one, of which only parts are downloaded."""
    return tuple(
        InputFile(name=file.name, sha256=checksum(file).removeprefix("1220"))
        if isinstance(file, Path)
        else InputFile(name=file.name, sha256=None, href=file.address)
        for file in scene.files
    )


def provenance_of(
    request: Request,
    scene: Scene,
    engines: Engines,
    inputs: tuple[InputFile, ...],
    lost: Mapping[str, Mapping[str, float]],
) -> Provenance:
    """What tags, item and record say of a map's making. `lost`: by sensor, the share of pixels that each cause took."""
    return Provenance(
        bundle=engines.bundle.name,
        bundle_sha256=engines.bundle.sha256,
        backend=engines.runtime.name,
        precision=request.precision,
        available=Availability.of(scene.sensors, engines.bundle.traces),
        inputs=inputs,
        assumptions=scene.assumptions,
        acquired={name: str(s.info.acquired) for name, s in scene.sources.items() if s.info.acquired},
        lost=lost,
    )
