"""The files of one map: their names, those of their parts, and the check before any work starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmedge.errors import OutputError
from mmedge.files import refuse_unwritable

TIFF_SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Final names of the files of one map. None: not wanted."""

    map: Path
    confidence: Path
    sensors: Path
    probs: Path | None
    item: Path | None
    quicklook: Path | None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The wanted files in the order in which they are published: the map last."""
        found = (self.confidence, self.sensors, self.probs, self.item, self.quicklook, self.map)
        return tuple(path for path in found if path is not None)


def plan_outputs(map_path: str | Path, *, probs: bool = False, json: bool = True, png: bool = True) -> Outputs:
    """Name the files that go with `map_path`: `scene_map.tif` brings `scene_map_confidence.tif`, `scene_map.json`...

    Raises OutputError where `map_path` is not called `*.tif`.
    """
    path = Path(map_path)
    if path.is_dir():
        raise OutputError(f"`{path}` is a folder", hint=f"-o {path / 'map.tif'}")
    if path.suffix.lower() not in TIFF_SUFFIXES:
        raise OutputError(f"a map is a GeoTIFF, `{path.name}` is not one", hint=f"-o {path.with_suffix('.tif')}")
    beside = {key: path.with_name(f"{path.stem}_{key}{path.suffix}") for key in ("confidence", "sensors", "probs")}
    return Outputs(
        map=path,
        confidence=beside["confidence"],
        sensors=beside["sensors"],
        probs=beside["probs"] if probs else None,
        item=path.with_suffix(".json") if json else None,
        quicklook=path.with_suffix(".png") if png else None,
    )


def refuse_existing(outputs: Outputs, *, overwrite: bool, inputs: Iterable[str | Path] = ()) -> None:
    """Raise OutputError where the outputs cannot be written: before any work starts, touching nothing.

    An output that exists needs `overwrite`; an output that is one of `inputs` is refused always.
    """
    _refuse_inputs(outputs, [Path(path) for path in inputs])
    refuse_unwritable(outputs.paths, overwrite=overwrite)


def _refuse_inputs(outputs: Outputs, inputs: Sequence[Path]) -> None:
    for path in outputs.paths:
        for source in inputs:
            if path.exists() and source.exists() and path.samefile(source):
                raise OutputError(f"output `{path}` is an input of this run", hint="-o another_map.tif")


def raw_part_of(path: Path) -> Path:
    """Where the tiles of a raster are gathered before the pass that compresses them."""
    return path.with_name(path.name + ".raw.part")
