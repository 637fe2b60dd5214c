"""One peer maps one scene: run by benchmarks.peers.run in the peer's own environment.

    ENV/bin/python benchmarks/peers/peer.py NAME SCENE OUT.npy FOLDER THREADS

Each function returns the class map (rows, cols) uint8. All share the network, tiles of 512 and, where the peer lets one
choose, an overlap of 64 pixels. The last line on stdout is JSON: the peak of memory.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window

TILE, OVERLAP, CLASSES = 512, 64, 8
MEAN, STD = 0.24, 0.12
Map = Any


def normal(raw: Any) -> Any:
    """Digital numbers as the network wants them."""
    return ((raw.astype(np.float32) * 1e-4) - MEAN) / STD


def session(folder: Path, threads: int) -> Callable[[Any], Any]:
    """The network in ONNX Runtime: normalised (batch, 6, rows, cols) -> classes."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    run = ort.InferenceSession(folder / "unet.onnx", options, providers=["CPUExecutionProvider"]).run
    return lambda x: run(None, {"x": x})[0].argmax(1).astype(np.uint8)


def network(folder: Path, threads: int) -> Any:
    """The same network in torch."""
    import torch

    sys.path.insert(0, str(Path(__file__).parents[2]))
    from benchmarks.unet import trained

    torch.set_num_threads(threads)
    return trained(folder / "unet.pt")


class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules that a peer imports and its tiling never uses, which have no build for this torch: empty classes."""

    def __init__(self, *roots: str) -> None:
        self._roots = roots

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.partition(".")[0] in self._roots:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> Any:
        module = types.ModuleType(spec.name)
        module.__getattr__ = lambda name: self._empty(name)  # type: ignore[method-assign]
        return module

    def _empty(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda self, *_, **__: None})

    def exec_module(self, module: Any) -> None:
        return None


def whole(path: Path) -> Any:
    with rasterio.open(path) as src:
        return normal(src.read())


def naive(scene: Path, folder: Path, threads: int) -> Map:
    """A loop over windows without overlap, with ONNX Runtime."""
    run = session(folder, threads)
    with rasterio.open(scene) as src:
        out = np.zeros(src.shape, np.uint8)
        for row in range(0, src.height, TILE):
            for col in range(0, src.width, TILE):
                window = Window(col, row, min(TILE, src.width - col), min(TILE, src.height - row))
                part = run(normal(src.read(window=window))[None])[0]
                out[row : row + part.shape[0], col : col + part.shape[1]] = part
    return out


def dask(scene: Path, folder: Path, threads: int) -> Map:
    """dask.array.map_overlap on blocks read by threads, one ONNX Runtime session for all, halo 32."""
    import dask
    import dask.array as da

    run = session(folder, 1)

    class Source:
        """Blocks of the raster, each read by its own handle."""

        def __init__(self) -> None:
            with rasterio.open(scene) as src:
                self.shape, self.dtype, self.ndim = (src.count, *src.shape), np.dtype("uint16"), 3

        def __getitem__(self, key: Any) -> Any:
            _, rows, cols = key
            with rasterio.open(scene) as src:
                return src.read(window=Window.from_slices(rows, cols))

    blocks = da.from_array(Source(), chunks=(6, TILE, TILE), meta=np.empty((0, 0, 0), np.uint16))
    depth = {0: 0, 1: OVERLAP // 2, 2: OVERLAP // 2}
    halo = da.overlap.overlap(blocks, depth=depth, boundary={1: "reflect", 2: "reflect"})
    labels = halo.map_blocks(lambda x: run(normal(x)[None])[0], dtype=np.uint8, drop_axis=0, chunks=halo.chunks[1:])
    edges = {0: "reflect", 1: "reflect"}
    out = da.overlap.trim_internal(labels, {0: OVERLAP // 2, 1: OVERLAP // 2}, boundary=edges)
    with dask.config.set(scheduler="threads", num_workers=threads):
        return out.compute()


def monai(scene: Path, folder: Path, threads: int) -> Map:
    """MONAI's sliding_window_inference, Gaussian weights."""
    import torch
    from monai.inferers import sliding_window_inference

    net, overlap = network(folder, threads), OVERLAP / TILE
    with torch.inference_mode():
        x = torch.from_numpy(whole(scene))[None]
        logits = sliding_window_inference(x, (TILE, TILE), 4, net, overlap=overlap, mode="gaussian")
    return logits.argmax(1)[0].numpy().astype(np.uint8)


def terratorch(scene: Path, folder: Path, threads: int) -> Map:
    """terratorch's tiled_inference in memory, blended; its module alone is loaded, with the helper that it needs.

    `delta` is cut off each side and padded around the image, so it has to be a multiple of the network's stride of 16:
    with terratorch's 8 the network's pooling lies on another grid than in one pass.
    """
    import ast
    import importlib.util
    import site

    import torch

    root = next(Path(s) / "terratorch" for s in site.getsitepackages() if (Path(s) / "terratorch").is_dir())
    source = (root / "models" / "utils.py").read_text()
    wanted = [n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef) and n.name == "pad_images"]
    helper = types.ModuleType("terratorch.models.utils")
    exec(compile(ast.Module(wanted, []), "utils.py", "exec"), {"torch": torch, "nn": torch.nn}, helper.__dict__)
    for name in ("terratorch", "terratorch.models"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["terratorch.models.utils"] = helper
    spec = importlib.util.spec_from_file_location("tiled_inference", root / "tasks" / "tiled_inference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiled_inference"] = module
    spec.loader.exec_module(module)
    net = network(folder, threads)
    with torch.inference_mode():
        x = torch.from_numpy(whole(scene))[None]
        logits = module.tiled_inference(
            lambda x, **_: net(x), x, CLASSES, crop=TILE, stride=TILE - OVERLAP, delta=16, batch_size=4
        )
    return logits.argmax(-3).reshape(x.shape[-2:]).numpy().astype(np.uint8)


def torchgeo(scene: Path, folder: Path, threads: int) -> Map:
    """A loop over torchgeo's GridGeoSampler, stitched by hand, half of the overlap cut off each side."""
    sys.meta_path.insert(0, Absent("torchvision"))
    import torch
    from torch.utils.data import DataLoader
    from torchgeo.datasets import RasterDataset, stack_samples
    from torchgeo.samplers import GridGeoSampler

    class Scene(RasterDataset):
        filename_glob = scene.name

    dataset = Scene(str(scene.parent))
    sampler = GridGeoSampler(dataset, size=TILE, stride=TILE - OVERLAP)
    loader = DataLoader(dataset, sampler=sampler, batch_size=4, collate_fn=stack_samples)
    net, half = network(folder, threads), OVERLAP // 2
    with rasterio.open(scene) as src:
        transform, out = src.transform, np.zeros(src.shape, np.uint8)
    height, width = out.shape
    with torch.inference_mode():
        for batch in loader:
            labels = net(torch.from_numpy(normal(batch["image"].numpy()))).argmax(1).numpy().astype(np.uint8)
            for part, box in zip(labels, batch["bounds"], strict=True):
                x, y = (box.minx, box.maxy) if hasattr(box, "minx") else (box[0].start, box[1].stop)
                col, row = (round(v) for v in ~transform * (float(x), float(y)))
                # The sampler counts from the lower edge: its upper tiles reach beyond the scene.
                top, left = (at + half if at > 0 else 0 for at in (row, col))
                bottom, right = (n if at + TILE >= n else at + TILE - half for at, n in ((row, height), (col, width)))
                out[top:bottom, left:right] = part[top - row : bottom - row, left - col : right - col]
    return out


def omnicloudmask(scene: Path, folder: Path, threads: int) -> Map:
    """OmniCloudMask's tiler with our network as its custom model. It normalises each patch by itself."""
    sys.meta_path.insert(0, Absent("torchvision", "segmentation_models_pytorch", "timm"))
    from omnicloudmask import predict_from_array

    with rasterio.open(scene) as src:
        raw = src.read()
    labels = predict_from_array(
        raw.astype(np.float32),
        patch_size=TILE,
        patch_overlap=OVERLAP,
        batch_size=1,
        inference_device="cpu",
        custom_models=network(folder, threads),
        pred_classes=CLASSES,
    )
    return labels[0].astype(np.uint8)


def geodeep(scene: Path, folder: Path, threads: int) -> Map:
    """GeoDeep: 3 bands alone, so each is fed twice; a 5 x 5 median over the map is part of it."""
    from geodeep import segment

    return segment(str(folder / "scene3.tif"), str(folder / "unet3.onnx"), output_type="raw", max_threads=threads)


def main() -> None:
    name, scene, out, folder, threads = sys.argv[1:]
    np.save(out, globals()[name](Path(scene), Path(folder), int(threads)))
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    print(json.dumps({"peak_rss_gib": int(peak[1]) / 2**20 if peak else None}))


if __name__ == "__main__":
    main()
