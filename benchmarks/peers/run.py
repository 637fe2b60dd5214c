"""mmedge and its peers on one scene, one network, the same tiles and threads, in one run.

    bash benchmarks/peers/install.sh ENVIRONMENTS
    python -m benchmarks.peers.run ENVIRONMENTS FOLDER --side 2048 --threads 1

CPU time is user and system time of the whole process, imports included. Peers have tiles of 512 with an overlap of 64;
mmedge has the window and the halo of its bundle, fitted to the scene. The reference is one pass of ONNX Runtime over
the whole scene; pixels within 64 px of its edge are left out: there every system pads in its own way. Seams: the scene
is cut 96 px off and mapped again, and the two maps are compared. Holes: squares of 200 px become nodata, and of the
pixels within 32 px of one, those that change class are counted; a hole is where mmedge tells the network so, and where
a peer reads 0. `benchmarks.measure` runs every row of docs/results/peers.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.windows import Window

from benchmarks.floors import end_to_end, process
from benchmarks.peers.peer import normal, session
from benchmarks.scene import write_scene

PEERS = ("naive", "dask", "monai", "terratorch", "torchgeo", "omnicloudmask", "geodeep")
PRECISIONS = ("fp32", "bf16", "int8")
SHIFT, EDGE, NEAR, HOLE = 96, 64, 32, 200
Labels = npt.NDArray[np.uint8]
Make = Callable[[Path], tuple[Labels, dict[str, Any]]]


def cut(scene: Path, target: Path, *, bands: int | None = None, offset: int = 0) -> Path:
    """The scene from `offset` px on, with its first `bands`."""
    with rasterio.open(scene) as src:
        window = Window(offset, offset, src.width - offset, src.height - offset)
        profile = {**src.profile, "width": window.width, "height": window.height, "count": bands or src.count}
        profile["transform"] = src.window_transform(window)
        with rasterio.open(target, "w", **profile) as out:
            out.write(src.read(list(range(1, profile["count"] + 1)), window=window))
            out.descriptions = src.descriptions[: profile["count"]]
    return target


def write_rgb_network(path: Path) -> None:
    """The network for GeoDeep: three bands in 0..1 (of 65535), each fed twice; windows of 512."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(path.with_name("unet.onnx"))
    scale = numpy_helper.from_array(np.array(65535e-4 / 0.12, np.float32), "dn")
    shift = numpy_helper.from_array(np.array(0.24 / 0.12, np.float32), "mean")
    nodes = [
        helper.make_node("Mul", ["rgb", "dn"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "mean"], ["normal"]),
        helper.make_node("Concat", ["normal", "normal"], ["x"], axis=1),
    ]
    inner = list(model.graph.node)
    del model.graph.node[:], model.graph.input[:]
    model.graph.node.extend([*nodes, *inner])
    model.graph.initializer.extend([scale, shift])
    model.graph.input.append(helper.make_tensor_value_info("rgb", onnx.TensorProto.FLOAT, [1, 3, 512, 512]))
    names = json.dumps({str(i): f"class {i}" for i in range(8)})
    told = {"model_type": '"Segmentor"', "class_names": names, "resolution": "1000", "tiles_overlap": "12.5"}
    helper.set_model_props(model, {**told, "seg_small_segment": "0"})
    onnx.save(model, path)


def reference(scene: Path, folder: Path) -> Labels:
    with rasterio.open(scene) as src:
        x = normal(src.read())
    labels: Labels = session(folder, 1)((np.concatenate([x, x]) if len(x) == 3 else x)[None])[0]
    return labels


def reference_openvino(scene: Path, folder: Path) -> Labels:
    """One fp32 pass in mmedge's own backend: sums in another order than ONNX Runtime's decide between equal classes."""
    import openvino as ov

    with rasterio.open(scene) as src:
        x = normal(src.read())[None]
    options = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1"}
    model = ov.Core().read_model(folder / "unet.onnx")
    model.reshape(list(x.shape))
    labels: Labels = ov.Core().compile_model(model, "CPU", options)(x)[0].argmax(1)[0].astype(np.uint8)
    return labels


def mapped(name: str, scene: Path, folder: Path, python: Path, threads: int) -> tuple[Labels, dict[str, Any]]:
    """The class map of a peer, and what it took."""
    script, out = Path(__file__).with_name("peer.py"), folder / f"{name}.npy"
    command = [str(python), str(script), name, str(scene), str(out), str(folder), str(threads)]
    said, used = process(command, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    return np.load(out), {**used, **json.loads(said.splitlines()[-1])}


def mmedge(precision: str, scene: Path, folder: Path, threads: int) -> tuple[Labels, dict[str, Any]]:
    model, out = folder / ("unet-int8" if precision == "int8" else "unet"), folder / "mmedge_map.tif"
    used = end_to_end(scene, out, model, precision, threads)
    with rasterio.open(out) as src:
        return src.read(1), used


def inner(labels: Labels) -> Labels:
    return labels[EDGE:-EDGE, EDGE:-EDGE]


def beside(shape: tuple[int, ...]) -> Labels:
    """Where square holes lie (2), and the pixels within 32 px of one (1)."""
    near = np.zeros(shape, np.uint8)
    for value, around in ((1, NEAR), (2, 0)):
        for i in range(300, shape[0] - 300, 700):
            for j in range(300, shape[1] - 300, 700):
                near[i - around : i + HOLE + around, j - around : j + HOLE + around] = value
    return near


def pierced(scene: Path, target: Path) -> tuple[Path, Labels]:
    """The scene with square holes of 200 px (nodata 0), and where pixels lie within 32 px of one (1) or in one (2)."""
    with rasterio.open(scene) as src:
        data, profile, names = src.read(), {**src.profile, "nodata": 0}, src.descriptions
    near = beside(data.shape[1:])
    data[:, near == 2] = 0
    with rasterio.open(target, "w", **profile) as out:
        out.write(data)
        out.descriptions = names
    return target, near


def row(make: Make, scene: Path, folder: Path, one_pass: Callable[[Path, Path], Labels]) -> dict[str, Any]:
    """One system: what it took, how far its map is from one pass over the scene, from its own on a shifted grid, and
    from its own beside holes. `folder` is for the scenes that this needs.
    """
    try:
        labels, used = make(scene)
        shifted, _ = make(cut(scene, _in(folder, "shifted") / scene.name, offset=SHIFT))
        holed, near = pierced(scene, _in(folder, "holed") / scene.name)
        beside, _ = make(holed)
    except RuntimeError as err:
        return {"error": str(err)}
    truth = one_pass(scene, folder)
    if labels.shape != truth.shape:
        return {"error": f"a map of {labels.shape} for a scene of {truth.shape}"}
    seams = inner(shifted) != inner(labels[SHIFT:, SHIFT:])
    return {
        "side_px": len(labels),
        "cpu_s": round(used["cpu_s"], 2),
        "wall_s": round(used["wall_s"], 2),
        "peak_rss_gib": round(used["peak_rss_gib"], 2),
        "mpx_per_cpu_s": round(labels.size / used["cpu_s"] / 1e6, 3),
        "mpx_per_s": round(labels.size / used["wall_s"] / 1e6, 3),
        "differs_percent": round(100 * float((inner(labels) != inner(truth)).mean()), 4),
        "shift_percent": round(100 * float(seams.mean()), 4),
        "hole_percent": round(100 * float((beside != labels)[near == 1].mean()), 4),
    }


def _in(folder: Path, name: str) -> Path:
    (folder / name).mkdir(exist_ok=True)
    return folder / name


def system_row(name: str, environments: Path, scene: Path, folder: Path, threads: int) -> dict[str, Any]:
    """The row of a peer, or of a precision of mmedge. `folder` holds the network and the bundles."""
    if name in PRECISIONS:
        return row(lambda s: mmedge(name, s, folder, threads), scene, folder, reference_openvino)
    environment = environments / ("dask" if name == "naive" else name)
    if (environment / "failed").exists():
        return {"error": (environment / "failed").read_text().strip()[-200:]}
    python = environment / "bin" / "python"
    if not python.exists():
        return {"error": "not installed"}
    if name != "geodeep":
        return row(lambda s: mapped(name, s, folder, python, threads), scene, folder, reference)
    write_rgb_network(folder / "unet3.onnx")

    def three(s: Path) -> tuple[Labels, dict[str, Any]]:
        cut(s, folder / "scene3.tif", bands=3)
        return mapped(name, s, folder, python, threads)

    def of_three(s: Path, _: Path) -> Labels:
        return reference(cut(s, folder / "scene3.tif", bands=3), folder)

    return row(three, scene, folder, of_three)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environments", type=Path)
    parser.add_argument("work", type=Path, help="what benchmarks.measure has prepared: network, bundles")
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default=",".join((*PRECISIONS, *PEERS)), help="some of the systems")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.work) as temporary:
        scene = write_scene(Path(temporary) / "scene.tif", args.side)
        for name in args.only.split(","):
            print(name, json.dumps(system_row(name, args.environments, scene, args.work, args.threads)), flush=True)


if __name__ == "__main__":
    main()
