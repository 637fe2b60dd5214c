"""Copy a GeoTIFF scene with a failure simulated in one sensor: window by window, the same bytes for the same seed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError, RasterioIOError
from rasterio.windows import Window as FileWindow

import mmedge
from mmedge.errors import BandError, OutputError, ReadError, SceneError, UsageError
from mmedge.files import refuse_unwritable, written_whole
from mmedge.geo_io.failures.causes import CAUSES, Cause
from mmedge.geo_io.failures.injection import Array, Failure, Levels
from mmedge.geo_io.failures.simulate import draw
from mmedge.grid import Window
from mmedge.tile import Valid

TAG = "MMEDGE_SIMULATED"
SAMPLE_PX = 512  # levels are measured on at most this many rows and columns


def simulate_failure(
    in_path: str | os.PathLike[str],
    out_path: str | os.PathLike[str],
    *,
    sensor: str,
    cause: Cause,
    fraction: float = 0.1,
    seed: int = 0,
    declared: bool | None = None,
    overwrite: bool = False,
    block_px: int = 1024,
) -> dict[str, Any]:
    """Write `in_path` to `out_path` with `cause` in about `fraction` of the pixels of the bands named `sensor:...`.

    Everything else is copied: bands, descriptions, tags, scales, nodata, georeference; overviews are not. Failed pixels
    of a declared failure (`simulate.draw`) become nodata; a scene without nodata gets NaN, or an integer that it does
    not use. Returns the record that is also kept in the tag `MMEDGE_SIMULATED` (a JSON list, the latest last), with the
    share really lost. Memory does not grow with the scene.

    Raises UsageError (unknown cause, fraction, no free nodata value), BandError (no band of that sensor), OutputError
    (the output exists or cannot be written), SceneError and ReadError (the input).
    """
    source, target = Path(in_path), Path(out_path)
    if cause not in CAUSES:
        raise UsageError(f"unknown cause `{cause}`; one of {', '.join(CAUSES)}", hint="mmedge simulate-failure --help")
    if not 0 < fraction <= 1:
        raise UsageError(f"fraction `{fraction}` is not in (0, 1]", hint="mmedge simulate-failure --help")
    if seed < 0 or block_px < 1:
        raise UsageError(
            f"seed `{seed}` must be >= 0 and block `{block_px}` >= 1", hint="mmedge simulate-failure --help"
        )
    _refuse(source, target, overwrite)
    with _open(source) as scene:
        bands = _bands(scene, sensor)
        failure = _drawn(scene, bands, cause, fraction, seed, declared)
        record: dict[str, Any] = {
            "schema": "mmedge.simulated/1",
            "version": mmedge.__version__,
            "sensor": sensor,
            "cause": cause,
            "fraction": fraction,
            "seed": seed,
            "declared": failure.declared,
        }
        with written_whole(target, also=(RasterioError,)) as part:
            lost = _copy(scene, part, bands, failure, block_px, record)
    return record | {"lost": lost}


def _refuse(source: Path, target: Path, overwrite: bool) -> None:
    if target.exists() and source.exists() and target.samefile(source):
        raise OutputError(f"`{target}` is the input", hint="mmedge simulate-failure SCENE -o OTHER.tif")
    refuse_unwritable([target], overwrite=overwrite)


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        scene = rasterio.open(path, driver="GTiff")
    except RasterioIOError as err:
        raise SceneError(f"cannot open `{path}` as GeoTIFF: {err}", hint=f"mmedge info {path}") from None
    with scene:
        yield scene


def _bands(scene: Any, sensor: str) -> list[int]:
    names = [name or "" for name in scene.descriptions]
    if scene.dtypes[0].startswith("complex"):
        raise SceneError(f"`{scene.name}` holds complex values: failures are simulated in intensities or dB")
    bands = [i for i, name in enumerate(names, 1) if name.startswith(f"{sensor}:")]
    if not bands:
        known = sorted({name.split(":")[0] for name in names if ":" in name})
        raise BandError(
            f"`{scene.name}` has no band of sensor `{sensor}`, only of: {', '.join(known) or 'none'}",
            hint=f"mmedge info {scene.name}",
        )
    return bands


def _drawn(scene: Any, bands: list[int], cause: Cause, fraction: float, seed: int, declared: bool | None) -> Failure:
    shape = (min(scene.height, SAMPLE_PX), min(scene.width, SAMPLE_PX))
    data = _read(scene, bands, out_shape=(len(bands), *shape))
    valid = _read_masks(scene, bands, out_shape=(len(bands), *shape))
    try:
        levels = Levels.of(data, valid, fraction)
    except ValueError:
        raise SceneError(f"`{scene.name}`: no valid pixel to fail", hint=f"mmedge info {scene.name}") from None
    return draw(cause, scene.shape, levels, np.random.default_rng(seed), fraction=fraction, declared=declared)


def _read(scene: Any, bands: list[int], **how: Any) -> Array:
    try:
        data: Array = scene.read(bands, **how)
    except RasterioIOError as err:
        raise ReadError(f"cannot read pixels of `{scene.name}`: {err}", hint=f"mmedge info {scene.name}") from None
    return data


def _read_masks(scene: Any, bands: list[int], **how: Any) -> Valid:
    valid: Valid = (scene.read_masks(bands, **how) > 0).all(axis=0)
    return valid


def _copy(scene: Any, part: Path, bands: list[int], failure: Failure, block_px: int, record: dict[str, Any]) -> float:
    """Write the whole scene; returns the share of its pixels that failed."""
    nodata = _nodata(scene, failure)
    profile = {**scene.profile, "driver": "GTiff", "nodata": nodata, "BIGTIFF": "IF_SAFER"}
    own_mask = scene.mask_flag_enums[0] == [MaskFlags.per_dataset]  # alpha is a band, and copied as one
    lost = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(part, "w", **profile) as out:
        _describe(scene, out)
        for window in Window(0, 0, *scene.shape).blocks(block_px):
            place = FileWindow(window.col, window.row, window.width, window.height)
            everything = _read(scene, list(scene.indexes), window=place)
            if scene.nodata is None and nodata is not None and (everything == nodata).any():
                raise UsageError(
                    f"`{scene.name}` has no nodata value, and `{nodata}` is used",
                    hint=f"rio edit-info --nodata VALUE {scene.name}",
                )
            valid = _read_masks(scene, bands, window=place)
            injected = failure.apply(everything[[b - 1 for b in bands]], valid, window)
            if nodata is not None:
                injected.data[:, valid & ~injected.valid] = nodata
            everything[[b - 1 for b in bands]] = injected.data
            out.write(everything, window=place)
            if own_mask:
                out.write_mask(scene.dataset_mask(window=place), window=place)
            lost += int(injected.mask.sum())
        share: float = lost / (scene.height * scene.width)
        past = json.loads(scene.tags().get(TAG, "[]"))
        out.update_tags(**{TAG: json.dumps([*past, record | {"lost": share}])})
    return share


def _nodata(scene: Any, failure: Failure) -> float | None:
    """What failed pixels become where they are lost: those of a declared failure, and the rim of border noise."""
    if scene.nodata is not None or not (failure.declared or failure.cause == "border_noise"):
        return None if scene.nodata is None else float(scene.nodata)
    kind = np.dtype(scene.dtypes[0])
    if kind.kind == "f":
        return float("nan")
    limits = np.iinfo(kind)
    return float(limits.min if kind.kind == "i" else limits.max)


def _describe(scene: Any, out: Any) -> None:
    out.descriptions, out.scales, out.offsets, out.units = scene.descriptions, scene.scales, scene.offsets, scene.units
    out.colorinterp = scene.colorinterp
    gcps, crs = scene.gcps
    if gcps:
        out.gcps = (gcps, crs)
    out.update_tags(**{k: v for k, v in scene.tags().items() if k != TAG})
    for band in scene.indexes:
        out.update_tags(band, **{k: v for k, v in scene.tags(band).items() if not k.startswith("STATISTICS_")})
