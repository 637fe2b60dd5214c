"""Every figure of the speed pages in one run, step by step: a step that is done is not done again.

    bash benchmarks/measure.sh FOLDER prepare|measure|tables [STEP...]

`prepare` makes scenes, network and bundles in FOLDER and needs no quiet machine. `measure` (the default) writes
FOLDER/results/STEP.json as each step ends, with the load of the machine before and after; STEPs are names or the
beginnings of names. `tables` writes docs/results/{floors,peers,scaling}.{json,md} and the plot from what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from benchmarks.floors import end_to_end, floors, make_bundle, process
from benchmarks.infer import mirrored
from benchmarks.machine import machine
from benchmarks.peers.run import PEERS, beside, system_row
from benchmarks.scene import strip, write_scene
from benchmarks.tables import write_tables

SIDES = (1000, 2000, 4000, 10000)
LARGEST, PEERS_SIDE, SHIPPED_SIDE, SMALL_SIDE, INFER_SIDE = 20000, 4096, 10980, 1536, 5000
WINDOWS, BATCHES, TILES = (256, 384, 512, 640, 768, 1024), (1, 2, 4, 8, 16, 32), (2, 4, 8, 16)
EMPTY, LIMIT_GIB, MAX_DROP = (0, 25, 50, 75), 0.5, 0.5
SENSORS = ("optical", "sar", "elevation")
Step = Callable[[], dict[str, Any]]


def prepare(folder: Path) -> None:
    """Whatever is measured on."""
    for side in (*SIDES, PEERS_SIDE, LARGEST):
        _once(folder / f"scene_{side}.tif", partial(write_scene, side=side))
    for side in (SHIPPED_SIDE, SMALL_SIDE):
        _once(folder / f"three_{side}.tif", partial(mirrored, side=side))
    for percent in EMPTY:
        _once(
            folder / f"empty_{percent}.tif", partial(emptied, scene=folder / f"scene_{SIDES[-2]}.tif", percent=percent)
        )
    if not (folder / "unet").exists():
        make_bundle(folder, window=None)
    if not (folder / "unet-int8").exists():
        quantized(folder)


def _once(path: Path, make: Callable[[Path], Any]) -> None:
    """A file that appears whole or not at all."""
    if path.exists():
        return
    part = path.with_name(f"part.{path.name}")
    make(part)
    part.rename(path)
    print(f"made {path.name}", file=sys.stderr, flush=True)


def emptied(path: Path, *, scene: Path, percent: int) -> None:
    """A scene whose last rows are nodata."""
    with rasterio.open(scene) as src:
        data = src.read()
        data[:, round(src.height * (1 - percent / 100)) :] = 0
        with rasterio.open(path, "w", **{**src.profile, "nodata": 0}) as out:
            out.write(data)
            out.descriptions = src.descriptions


def quantized(folder: Path) -> None:
    """int8 of the network through `mmedge quantize`, calibrated on a corner of the scene."""
    from mmedge.cli.app import main as mmedge

    scene, labels = folder / "calibrate.tif", folder / "calibrate_classes.tif"
    write_scene(scene, 1024)
    with rasterio.open(scene) as src:
        profile = {**src.profile, "count": 1, "dtype": "uint8", "predictor": 1}
        with rasterio.open(labels, "w", **profile) as out:
            out.write(np.concatenate([strip(0, row, 512, 1024)[1] for row in (0, 512)])[None])
    told = ["quantize", str(folder / "unet"), "--scenes", str(scene), "--labels", str(labels)]
    told += ["--max-drop", str(MAX_DROP), "--overwrite"]
    code = subprocess.run(
        [sys.executable, "-c", f"from {mmedge.__module__} import main; main()", *told, "-o", str(folder / "part.int8")],
        check=False,
    ).returncode
    if code:
        raise RuntimeError(f"mmedge quantize ended with {code}")
    (folder / "part.int8").rename(folder / "unet-int8")


def steps(folder: Path, peers: Path) -> dict[str, Step]:
    """Every step by name, the most important first."""
    found: dict[str, Step] = {}
    unet, most = {p: folder / ("unet-int8" if p == "int8" else "unet") for p in ("fp32", "bf16", "int8")}, 2
    scene = {side: folder / f"scene_{side}.tif" for side in (*SIDES, PEERS_SIDE, LARGEST)}

    def run(
        where: Path, model: Path | str, precision: str = "fp32", threads: int = most, **wishes: Any
    ) -> dict[str, Any]:
        made = end_to_end(where, folder / "measured.tif", model, precision, threads, **wishes)
        with rasterio.open(where) as src:
            pixels = src.height * src.width
        rates = {f"mpx_per_{kind}_s": round(pixels / made[f"{kind}_s"] / 1e6, 4) for kind in ("cpu", "wall")}
        return {**made, **rates, "precision": precision, "threads": threads, "side_px": round(pixels**0.5)}

    def alone(name: str) -> dict[str, Any]:
        """A peer on the large scene: time and memory alone."""
        python = peers / ("dask" if name == "naive" else name) / "bin" / "python"
        command = [str(python), "benchmarks/peers/peer.py", name, str(scene[SIDES[-1]]), str(folder / "map.npy")]
        said, used = process([*command, str(folder), str(most)], OMP_NUM_THREADS=str(most))
        return {"system": name, "side_px": SIDES[-1], **used, **json.loads(said.splitlines()[-1])}

    for threads in (2, 1):
        for precision, model in unet.items():
            found[f"floors-{precision}-{threads}"] = partial(floors, scene[SIDES[-1]], model, precision, threads)
    for name in (*unet, *PEERS):
        found[f"peers-{name}"] = partial(system_row, name, peers, scene[PEERS_SIDE], folder, most)
    for name in ("dask", "naive"):
        found[f"alone-{name}"] = partial(alone, name)
    limit = round(LIMIT_GIB * 2**30)
    found["memory-probs"] = partial(run, scene[SIDES[-1]], unet["fp32"], probs=True)
    found["memory-probs-1"] = partial(run, scene[SIDES[-1]], unet["fp32"], threads=1, probs=True)
    found["memory-probs-limited"] = partial(run, scene[SIDES[-1]], unet["fp32"], probs=True, max_memory=limit)
    for side in SIDES[:-1]:
        found[f"pixels-{side}"] = partial(run, scene[side], unet["fp32"])
    for percent in EMPTY:
        found[f"empty-{percent}"] = partial(run, folder / f"empty_{percent}.tif", unet["fp32"])
    three, small = folder / f"three_{SHIPPED_SIDE}.tif", folder / f"three_{SMALL_SIDE}.tif"
    for name in ("mamol-terra", "mamol-conv"):
        found[f"shipped-{name}"] = partial(run, three, name)
        found[f"holes-{name}"] = partial(holes, folder, small, name)
    for code in range(1, 8):
        sensors = [name for i, name in enumerate(SENSORS) if code >> i & 1]
        found[f"available-{'+'.join(sensors)}"] = partial(run, small, "mamol-terra", available=sensors)
    for batch in BATCHES:
        found[f"batch-{batch}"] = partial(run, small, "mamol-terra", batch=batch)
    for cells in TILES:
        found[f"tile-{cells}"] = partial(run, small, "mamol-terra", cells=cells)
    for window in WINDOWS:
        found[f"window-{window}"] = partial(window_run, run, folder, window)
    found["infer"] = partial(infer_ratio, folder)
    found["tune-unet"] = partial(tuned, folder, scene[SIDES[-2]], unet["fp32"])
    found["tune-mamol-terra"] = partial(tuned, folder, small, "mamol-terra")
    found[f"largest-{LARGEST}"] = partial(run, scene[LARGEST], unet["fp32"])
    return found


def window_run(run: Callable[..., dict[str, Any]], folder: Path, window: int) -> dict[str, Any]:
    """The U-Net with windows of at most this width."""
    narrow = folder / f"window_{window}" / "unet"
    if not narrow.exists():
        make_bundle(narrow.parent, window=window, network=folder / "unet.onnx")
    return {"window_px": window, **run(folder / f"scene_{SIDES[-2]}.tif", narrow)}


def holes(folder: Path, scene: Path, model: str) -> dict[str, Any]:
    """Squares of 200 px in which the optics saw nothing: of the pixels within 32 px of one, the share that changes
    class where the network is told so, and where it is given zeros instead.
    """
    with rasterio.open(scene) as src:
        data, profile, names = src.read(), src.profile, src.descriptions
    near, optical = beside(data.shape[1:]), [name.startswith("optical") for name in names]
    maps, target = {}, folder / "holed.tif"
    for kind, value in (("whole", None), ("told", np.nan), ("zeros", 0.0)):
        if value is not None:
            data[np.ix_(optical, *(range(n) for n in near.shape))] = np.where(near == 2, value, data[optical])
        with rasterio.open(target, "w", **profile) as out:
            out.write(data)
            out.descriptions = names
        end_to_end(target, folder / "measured.tif", model, "fp32", 2)
        with rasterio.open(folder / "measured.tif") as src:
            maps[kind] = src.read(1)
    shares = {kind: 100 * float((maps[kind] != maps["whole"])[near == 1].mean()) for kind in ("told", "zeros")}
    return {"side_px": len(near), **{f"{kind}_percent": round(share, 3) for kind, share in shares.items()}}


def infer_ratio(folder: Path) -> dict[str, Any]:
    """benchmarks.infer: the default bundle against its bare session, the example, `--help`."""
    out = folder / "infer.json"
    process([sys.executable, "-m", "benchmarks.infer", "--side", str(INFER_SIDE), "--out", str(out)])
    return dict(json.loads(out.read_text()))


def tuned(folder: Path, scene: Path, model: Path | str) -> dict[str, Any]:
    """What `--tune` finds here, and what it takes."""
    choices = folder / f"tuning_{Path(model).name}"
    os.environ["MMEDGE_TUNING"] = str(choices)
    made = end_to_end(scene, folder / "measured.tif", model, "fp32", 2, tune=True)
    again = end_to_end(scene, folder / "measured.tif", model, "fp32", 2, tune=True)
    del os.environ["MMEDGE_TUNING"]
    (kept,) = choices.glob("*.json")
    return {"first_wall_s": made["wall_s"], "then_wall_s": again["wall_s"], **json.loads(kept.read_text())}


def measure(folder: Path, peers: Path, wanted: list[str]) -> None:
    """Every wanted step that has no result yet. One that fails says so, and the next goes on."""
    results = folder / "results"
    results.mkdir(exist_ok=True)
    facts, begun = machine(), time.perf_counter()
    for name, step in steps(folder, peers).items():
        target = results / f"{name}.json"
        if target.exists() or (wanted and not any(name.startswith(some) for some in wanted)):
            continue
        load, start = os.getloadavg()[0], time.perf_counter()
        try:
            row = step()
        except (RuntimeError, OSError, ValueError) as err:
            print(f"{name}: FAILED: {err}", file=sys.stderr, flush=True)
            continue
        spent = time.perf_counter() - start
        document = {"machine": facts, "load": [round(load, 2), round(os.getloadavg()[0], 2)], "took_s": round(spent, 1)}
        part = target.with_suffix(".part")
        part.write_text(json.dumps({**document, "row": row}, indent=1) + "\n")
        part.rename(target)
        minutes = (time.perf_counter() - begun) / 60
        print(f"{minutes:5.1f} min  {name}: {spent:.1f} s", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("what", nargs="?", choices=("prepare", "measure", "tables"), default="measure")
    parser.add_argument("steps", nargs="*", help="names of steps, or their beginnings; default: all")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    folder = args.folder.resolve()
    peers = Path(os.environ.get("PEERS") or folder / "peers").resolve()
    if args.what == "tables":
        write_tables(folder / "results", args.out)
        return
    prepare(folder)
    if args.what == "measure":
        measure(folder, peers, args.steps)


if __name__ == "__main__":
    main()
