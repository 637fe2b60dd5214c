"""Scenes to learn from: opened as inference opens them, laid out on disk pixel by pixel, with labels and parts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmedge.bundle import LandClass
from mmedge.edge.evaluation.blocks import PARTS, Blocks, deal_scenes
from mmedge.edge.relief import derive
from mmedge.edge.training.config import ClassConfig, RunConfig, SceneConfig, SensorConfig
from mmedge.edge.training.samples import Arrays, LabelledScene, Masks, cut
from mmedge.errors import SceneError, UsageError
from mmedge.geo_io.acquired import Acquisition, join_acquisitions
from mmedge.geo_io.gather import SceneOptions
from mmedge.geo_io.ground import gsd_m
from mmedge.geo_io.labels import LabelFile, Labels, legend_of, read_labels
from mmedge.geo_io.location import locate
from mmedge.geo_io.scene import Scene, open_scene
from mmedge.grid import Grid
from mmedge.modality import Modality, Unit

READ_PX = 512
WANTED_BLOCKS = 64
UNITS: dict[str, Unit] = {"reflectance": "reflectance", "dB": "dB", "m": "m", "raw": "raw"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneSet:
    """Labelled scenes, which squares of them train, and what the network's inputs and classes are.

    `scenes[i].data` lie on disk (memory maps), so that scenes may be larger than memory. A sensor that a scene lacks is
    not in its `data`.
    """

    scenes: tuple[LabelledScene, ...]
    blocks: tuple[Blocks, ...]
    modalities: tuple[Modality, ...]
    classes: tuple[LandClass, ...]
    files: tuple[tuple[str, ...], ...]
    acquired: Acquisition | None

    @property
    def sensors(self) -> tuple[str, ...]:
        return tuple(m.name for m in self.modalities)

    def digest(self) -> str:
        """Of everything that training reads: pixels, labels and squares."""
        found = hashlib.sha256()
        for scene, blocks in zip(self.scenes, self.blocks, strict=True):
            found.update(json.dumps(blocks.document()).encode())
            arrays = {f"{kind}/{m}": x for kind in ("data", "valid") for m, x in getattr(scene, kind).items()}
            for name, x in sorted({**arrays, "labels": scene.labels}.items()):
                found.update(f"{name} {x.dtype} {x.shape}".encode())
                for part in x:  # from the disk piece by piece
                    found.update(np.ascontiguousarray(part).data)
        return found.hexdigest()

    def windows(self, which: int, origins: npt.NDArray[np.int64], size: int) -> tuple[Arrays, Masks]:
        """Windows of one scene as `cut` gives them; a sensor that the scene lacks is invalid."""
        data, valid = cut(self.scenes[which], origins, size)
        for m in self.modalities:
            if m.name not in data:
                data[m.name] = np.zeros((len(origins), len(m.bands), size, size), np.float32)
                valid[m.name] = np.zeros((len(origins), 1, size, size), np.bool_)
        return data, valid

    def inputs(self, which: int, data: Mapping[str, npt.NDArray[np.float32]], valid: Masks) -> Arrays:
        """What the network sees of windows: elevation as relief, 0 where invalid."""
        pixel_m = gsd_m(self.blocks[which].grid)
        found = {}
        for m in self.modalities:
            x = derive(m.derive, data[m.name], valid[m.name], pixel_m) if m.derive else data[m.name]
            found[m.name] = np.where(valid[m.name], x, np.float32(0))
        return found


def scene_options(config: SceneConfig) -> SceneOptions:
    """What a run file says about a scene."""
    return SceneOptions(
        sources={m: [locate(p) for p in paths] for m, paths in config.sources.items()},
        bands=config.bands,
        scale=config.scale,
        unit=config.unit,
        masks={m: [locate(p) for p in paths] for m, paths in config.masks.items()},
        reference=config.reference,
    )


def open_configured(config: SceneConfig, modalities: Sequence[Modality] | None) -> Scene:
    """The scene of a run file's entry."""
    return open_scene(locate(config.scene) if config.scene else None, modalities, scene_options(config))


def complete(config: RunConfig) -> RunConfig:
    """The same run with everything said that files say: sensors, classes, size of the squares."""
    sensors = config.sensors or _sensors_of(config)
    classes = config.classes or tuple(
        ClassConfig(value=c.value, name=c.name, color=bytes(c.color).hex())
        for c in legend_of([label_file(s) for s in config.scenes])
    )
    return config.model_copy(update={"sensors": sensors, "classes": classes})


def label_file(config: SceneConfig) -> LabelFile:
    return LabelFile(path=config.labels, field=config.field)


def modality_of(sensor: SensorConfig) -> Modality:
    return Modality(
        name=sensor.name, bands=sensor.bands, unit=UNITS[sensor.unit], gsd_m=sensor.gsd_m, derive=sensor.derive
    )


def _sensors_of(config: RunConfig) -> tuple[SensorConfig, ...]:
    """Every sensor of the scenes with the bands that all scenes which have it share; elevation never absolute."""
    height = "terrain" if config.network.encoder == "unet" else "relief"
    bands: dict[str, list[str]] = {}
    units: dict[str, str] = {}
    sizes = []
    for entry in config.scenes:
        with open_configured(entry, None) as scene:
            sizes.append(gsd_m(scene.grid))
            for name, source in scene.sources.items():
                units[name] = source.info.unit
                known = bands.get(name, list(source.info.bands))
                bands[name] = [b for b in known if b in source.info.bands]
    empty = [name for name, found in bands.items() if not found]
    if empty:
        raise UsageError(f"the scenes share no band of `{empty[0]}`", hint="name its bands under `sensors`")
    size = float(f"{np.median(sizes):.3g}")
    return tuple(
        SensorConfig.model_validate(
            {"name": name, "bands": found, "unit": units[name], "gsd_m": size}
            | ({"derive": height} if units[name] == "m" and len(found) == 1 else {})
        )
        for name, found in bands.items()
    )


def classes_of(config: RunConfig) -> tuple[LandClass, ...]:
    """The classes of a complete configuration."""
    return tuple(LandClass(c.value, c.name, _rgb(c.color)) for c in config.classes or ())


def labels_of(entry: SceneConfig, scene: Scene, classes: Sequence[LandClass]) -> Labels:
    """The labels of a scene on its grid. Raises SceneError where there are none."""
    labels = read_labels(label_file(entry), scene.grid, classes)
    if (labels < 0).all():
        raise SceneError(
            f"no pixel of `{scene.name}` has a class of the run in `{entry.labels}`",
            hint=f"rio info {entry.labels}; do scene and labels overlap?",
        )
    return labels


def split(
    labels: Sequence[npt.NDArray[np.signedinteger[Any]]], grids: Sequence[Grid], config: RunConfig
) -> tuple[list[Blocks], list[npt.NDArray[np.signedinteger[Any]]]]:
    """The squares of each scene, and its labels that are left. Raises UsageError where there are too few squares."""
    fixed = [None if s.part is None else PARTS.index(s.part) for s in config.scenes]
    block_px = config.split.block_px or _block_px(sum(x.size for x in labels), config.window_px)
    if block_px < config.window_px:
        raise UsageError(
            f"squares of {block_px} px hold no window of {config.window_px} px",
            hint="raise `block_px` or lower `window_px`",
        )
    seed = config.seed if config.split.seed is None else config.split.seed
    return deal_scenes(labels, grids, fixed, block_px, config.split.shares, len(config.classes or ()), seed)


def read_scenes(config: RunConfig, cache: Path, *, warn: Callable[[str], None]) -> SceneSet:
    """Every scene of a complete configuration, copied to `cache` in model units, with its labels and squares."""
    if config.sensors is None or config.classes is None:
        raise ValueError("the configuration is not complete")
    modalities = tuple(modality_of(s) for s in config.sensors)
    classes = classes_of(config)
    scenes, grids, files, acquired = [], [], [], []
    for i, entry in enumerate(config.scenes):
        with open_configured(entry, modalities) as scene:
            for text in scene.warnings:
                warn(text)
            labels = labels_of(entry, scene, classes)
            folder = cache / f"{i}"
            folder.mkdir(parents=True, exist_ok=True)
            scenes.append(_copied(scene, labels, folder))
            grids.append(scene.grid)
            files.append(tuple(file.name for file in scene.files))
            acquired += [source.info.acquired for source in scene.sources.values() if source.info.unit != "m"]
    blocks, left = split([s.labels for s in scenes], grids, config)
    return SceneSet(
        scenes=tuple(replace(s, labels=some) for s, some in zip(scenes, left, strict=True)),
        blocks=tuple(blocks),
        modalities=modalities,
        classes=classes,
        files=tuple(files),
        acquired=join_acquisitions(acquired),
    )


def _copied(scene: Scene, labels: npt.NDArray[np.int16], folder: Path) -> LabelledScene:
    """The scene's pixels as arrays on disk, read piece by piece."""
    rows, cols = scene.grid.shape
    data: Arrays = {}
    valid: Masks = {}
    for name, source in scene.sources.items():
        shape = (len(source.info.bands), rows, cols)
        data[name] = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, shape)
        valid[name] = np.lib.format.open_memmap(folder / f"{name}_valid.npy", "w+", np.bool_, (rows, cols))
    for window in scene.grid.window.blocks(READ_PX):
        where = window.within(scene.grid.window)
        tile = scene.read(window)
        for name in data:
            data[name][:, where[0], where[1]] = tile.data[name]
            valid[name][where] = tile.valid[name]
    return LabelledScene(scene.name, data, valid, labels, scene.grid.origin_px)


def _block_px(pixels: int, window_px: int) -> int:
    """A multiple of the window's side that leaves about `WANTED_BLOCKS` squares."""
    return window_px * max(1, int((pixels / WANTED_BLOCKS) ** 0.5 / window_px))


def _rgb(color: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(color)
    return red, green, blue
