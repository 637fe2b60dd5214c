"""mmedge and its peers on one scene, one network, the same tiles and threads, in one run.

    bash benchmarks/peers/install.sh ENVIRONMENTS
    python -m benchmarks.peers.run ENVIRONMENTS --side 2048 --threads 1

CPU time is user and system time of the whole process, imports included. Peers have tiles of 512 with an overlap of 64;
mmedge has the window and the halo of its bundle, fitted to the scene. The reference is one pass of ONNX Runtime over
the whole scene; pixels within 64 px of its edge are left out: there every system pads in its own way. Seams: the scene
is cut 96 px off and mapped again, and the two maps are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.windows import Window

from benchmarks.floors import end_to_end, make_bundle, process
from benchmarks.machine import machine
from benchmarks.peers.peer import normal, session
from benchmarks.scene import write_scene

PEERS = ("naive", "dask", "monai", "terratorch", "torchgeo", "omnicloudmask", "geodeep")
SHIFT, EDGE = 96, 64
Labels = npt.NDArray[np.uint8]


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


def mapped(name: str, scene: Path, folder: Path, python: Path, threads: int) -> tuple[Labels, dict[str, Any]]:
    """The class map of a peer, and what it took."""
    script, out = Path(__file__).with_name("peer.py"), folder / f"{name}.npy"
    command = [str(python), str(script), name, str(scene), str(out), str(folder), str(threads)]
    said, used = process(command, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    return np.load(out), {**used, **json.loads(said.splitlines()[-1])}


def mmedge(precision: str, scene: Path, folder: Path, threads: int) -> tuple[Labels, dict[str, Any]]:
    for old in folder.glob("mmedge_map*"):
        old.unlink()
    used = end_to_end(scene, folder / "mmedge_map.tif", folder / "unet", precision, threads)
    with rasterio.open(folder / "mmedge_map.tif") as src:
        return src.read(1), used


def inner(labels: Labels) -> Labels:
    return labels[EDGE:-EDGE, EDGE:-EDGE]


def row(make: Any, scene: Path, shifted: Path, truth: Labels) -> dict[str, Any]:
    """One system: what it took, and how far its map is from one pass and from its own on a shifted grid."""
    try:
        labels, used = make(scene)
        again, _ = make(shifted)
    except RuntimeError as err:
        return {"error": str(err)}
    if labels.shape != truth.shape:
        return {"error": f"a map of {labels.shape} for a scene of {truth.shape}"}
    seams = inner(again) != inner(labels[SHIFT:, SHIFT:])
    return {
        "cpu_s": round(used["cpu_s"], 2),
        "wall_s": round(used["wall_s"], 2),
        "peak_rss_gib": round(used["peak_rss_gib"], 2),
        "mpx_per_cpu_s": round(labels.size / used["cpu_s"] / 1e6, 3),
        "differs_percent": round(100 * float((inner(labels) != inner(truth)).mean()), 4),
        "shift_percent": round(100 * float(seams.mean()), 4),
    }


def table(result: dict[str, Any]) -> str:
    """The rows as Markdown."""
    facts = result["machine"]
    lines = [
        "# Peers, side by side",
        "",
        f"{result['side_px']} x {result['side_px']} px, 6 bands uint16; U-Net of 0.79 M parameters; "
        f"{result['threads']} threads. Machine: {facts['cpu']} [{facts['flags']}], commit {facts['commit']}, "
        f"load {result['load']}.",
        f"`{result['command']}`",
        "",
        "CPU s: user and system time of the whole process. Differs: share of pixels that are not those of one pass",
        "over the whole scene. Shift: share that changes when the scene is cut 96 px off.",
        "",
        "| system | CPU s | wall s | RSS GiB | Mpx / CPU s | differs % | shift % |",
        "|---|---|---|---|---|---|---|",
    ]
    keys = ("cpu_s", "wall_s", "peak_rss_gib", "mpx_per_cpu_s", "differs_percent", "shift_percent")
    for name, found in result["rows"].items():
        cells = [str(found[key]) for key in keys] if "error" not in found else [found["error"], *["-"] * 5]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", "![CPU time of each system](peers.svg)"]) + "\n"


def plot(result: dict[str, Any]) -> str:
    """CPU time of each system as bars, in SVG, with the share of its pixels that differ from one pass."""
    rows = {name: row for name, row in result["rows"].items() if "error" not in row}
    longest = max(row["cpu_s"] for row in rows.values())
    parts = []
    for i, (name, row) in enumerate(rows.items()):
        y, width = 24 + 26 * i, 400 * row["cpu_s"] / longest
        color = "#0072b2" if name.startswith("mmedge") else "#999999"
        told = f"{row['cpu_s']:.1f} s, {row['differs_percent']:g} % differ"
        parts += [
            f'<text x="130" y="{y + 13}" text-anchor="end">{name}</text>',
            f'<rect x="136" y="{y}" width="{width:.1f}" height="18" fill="{color}"/>',
            f'<text x="{142 + width:.1f}" y="{y + 13}">{told}</text>',
        ]
    height = 34 + 26 * len(rows)
    title = (
        f'<text x="136" y="14">CPU time, {result["side_px"]} x {result["side_px"]} px; pixels unlike one pass</text>'
    )
    style = "<style>text{font:12px sans-serif;fill:#222}</style><rect width='100%' height='100%' fill='#fff'/>"
    size = f'viewBox="0 0 720 {height}" width="720" height="{height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{style}{title}{"".join(parts)}</svg>\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environments", type=Path)
    parser.add_argument("--side", type=int, default=10000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="some of the systems, joined by commas")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--out", type=Path, help="a folder for peers.json, .md and .svg")
    args = parser.parse_args()
    wanted = args.only.split(",") if args.only else [*args.precisions.split(","), *PEERS]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "a").mkdir()
        (folder / "b").mkdir()
        make_bundle(folder, window=None)
        write_rgb_network(folder / "unet3.onnx")
        scene = write_scene(folder / "a" / "scene.tif", args.side)
        shifted = cut(scene, folder / "b" / "scene.tif", offset=SHIFT)
        truth = reference(scene, folder)
        result: dict[str, Any] = {
            "schema": "mmedge.benchmark.peers/1",
            "command": f"python -m benchmarks.peers.run ENVIRONMENTS --side {args.side} --threads {args.threads}",
            "machine": machine(),
            "load": round(os.getloadavg()[0], 1),
            "side_px": args.side,
            "threads": args.threads,
            "rows": {},
        }
        for name in wanted:
            if name in ("fp32", "bf16", "int8"):
                found = row(
                    lambda s, p=name: mmedge(p, s, folder, args.threads),
                    scene,
                    shifted,
                    truth,  # type: ignore[misc]
                )
                result["rows"][f"mmedge {name}"] = found
            else:
                environment = args.environments / ("dask" if name == "naive" else name)
                failed = environment / "failed"
                if failed.exists():
                    result["rows"][name] = {"error": failed.read_text().strip()[-200:]}
                    continue
                python = environment / "bin" / "python"
                if name == "geodeep":
                    truth = reference(cut(scene, folder / "scene3.tif", bands=3), folder)

                def make(s: Path, name: str = name, python: Path = python) -> tuple[Labels, dict[str, Any]]:
                    if name == "geodeep":
                        cut(s, folder / "scene3.tif", bands=3)
                    return mapped(name, s, folder, python, args.threads)

                result["rows"][name] = row(make, scene, shifted, truth)
            print(name, json.dumps(result["rows"][list(result["rows"])[-1]]), file=sys.stderr, flush=True)
        shutil.rmtree(folder / "a")
    text = json.dumps(result, indent=1)
    print(text)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "peers.json").write_text(text + "\n")
        (args.out / "peers.md").write_text(table(result))
        (args.out / "peers.svg").write_text(plot(result))


if __name__ == "__main__":
    main()
