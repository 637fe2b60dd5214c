"""The inference side alone: without torch, in bounded memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.windows

BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "onnx", "onnxruntime", "tensorrt", "nncf", "sklearn"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
"""


def python(code: str, *args: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_inference_side_runs_where_torch_is_not_installed(chile: Path, small: Path, tmp_path: Path) -> None:
    code = BLOCKED + "from mmedge.cli.app import run; sys.exit(run(sys.argv[1:]))"
    arguments = ["infer", str(chile / "scene.tif"), "-m", str(small), "-o", str(tmp_path / "map.tif"), "--probs"]
    assert python(code, *arguments).endswith("map.tif\n")
    modules = "import mmedge.edge.{infer,arrays,predict,stream,device,record,windows}"
    names = modules.partition("{")[2].rstrip("}").split(",")
    python(BLOCKED + "\n".join(f"import mmedge.edge.{name}" for name in names))


PEAK = """
import re, sys
from pathlib import Path
from mmedge.edge.infer import infer
scene, model, output = sys.argv[1:]
infer(scene, output, model=model, threads=2, cells=4, probs=True)
# Not getrusage: its peak is inherited from the process that started this one.
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024)
"""


def tall(chile: Path, target: Path, times: int) -> Path:
    """The example `times` below itself and 8 times beside itself, uncompressed, written block by block."""
    with rasterio.open(chile / "scene.tif") as src:
        row = np.tile(src.read(), (1, 1, 8))
        size = {"height": 224 * times, "width": 224 * 8, "compress": None, "predictor": 1}
        with rasterio.open(target, "w", **{**src.profile, **size}) as out:
            for i in range(times):
                out.write(row, window=rasterio.windows.Window(0, 224 * i, 224 * 8, 224))
            out.descriptions = src.descriptions
    return target


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_scene(chile: Path, small: Path, tmp_path: Path) -> None:
    peaks = []
    for times in (8, 32):
        scene = tall(chile, tmp_path / f"tall{times}.tif", times)
        peaks.append(float(python(PEAK, str(scene), str(small), str(tmp_path / f"map{times}.tif"))))
    assert peaks[1] < 1.1 * peaks[0] + 20, f"{peaks} MiB at 1x and 4x the area"


AFFINITY = """
import os, sys, threading
import numpy as np
from mmedge.bundle import open_bundle
from mmedge.edge.runtime.open import open_runtime
from mmedge.edge.runtime.session import GraphKey, input_shapes
bundle = open_bundle(sys.argv[1])
key = GraphKey.every(bundle)[0]
session = open_runtime("openvino", precision="fp32", threads=1)[0].load(bundle, key, batch=4)
feeds = {name: np.ones(shape, np.bool_ if name.endswith("_valid") else np.float32)
         for name, shape in input_shapes(bundle, key, 4).items()}
session.run(feeds)
everywhere, seen, end = len(os.sched_getaffinity(0)), set(), threading.Event()

def compute():
    while not end.is_set():
        session.run(feeds)

worker = threading.Thread(target=compute)
worker.start()
for _ in range(2000):
    for thread in os.listdir("/proc/self/task"):
        seen.add(len(os.sched_getaffinity(int(thread))))
end.set()
worker.join()
print(everywhere, *seen)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells the affinity of each thread")
def test_no_thread_that_computes_is_bound_to_a_core(small: Path) -> None:
    """Every process would bind its first thread to the first core, and several workers would share that one.

    While a graph is compiled, OpenVINO does bind threads.
    """
    everywhere, *seen = python(AFFINITY, str(small)).split()
    assert seen == [everywhere]
