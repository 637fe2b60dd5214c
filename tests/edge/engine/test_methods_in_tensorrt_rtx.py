"""TensorRT for RTX builds the graphs of every method, not only of the models that ship."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed (x86-64 only): mmedge[tensorrt-rtx]")
pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from networks import CHANNELS, SIDE, labels, small, windows  # noqa: E402

from mmedge.calibration.observe import observe  # noqa: E402
from mmedge.calibration.qdq import linear_layers, quantized  # noqa: E402
from mmedge.edge.engine.build import build  # noqa: E402
from mmedge.edge.engine.half import to_half  # noqa: E402
from mmedge.edge.engine.key import BuildOptions  # noqa: E402
from mmedge.edge.export import to_onnx  # noqa: E402

SENSORS = ("optical", "sar")
METHODS = [
    ("mamol", "unet", {}),
    ("mamol", "relu", {"adapted": "coarsest"}),
    ("mamol", "vit", {"variant": "A"}),
    ("mars", "unet", {}),
    ("mars", "vit", {"routing": "pixel"}),
    ("dymo", "unet", {}),
    ("dymo", "vit", {"distance": "euclid"}),
    ("impute-all", "unet", {}),
    ("specialists", "vit", {}),
]


def int8(model: onnx.ModelProto) -> onnx.ModelProto:
    for node in model.graph.node:
        node.name = node.name or node.output[0]
    data, valid = windows(SENSORS)
    feeds = {m: data[m].numpy() for m in SENSORS} | {f"{m}_valid": valid[m].numpy() for m in SENSORS}
    layers = linear_layers(model)
    clips = {name: h.top for name, h in observe(model, sorted({x.input for x in layers}), [feeds]).items()}
    return quantized(model, layers, clips)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(("method", "encoder", "options"), METHODS)
def test_every_precision_builds(
    method: str, encoder: str, options: dict[str, str], mixed: bool, tmp_path: Path
) -> None:
    network = small(method, encoder, **options)
    network.finish([(*windows(), labels("map"))])
    model = to_onnx(network, SENSORS, mixed=mixed, window_px=SIDE)
    shapes = {m: (1, CHANNELS[m], SIDE, SIDE) for m in SENSORS} | {f"{m}_valid": (1, 1, SIDE, SIDE) for m in SENSORS}
    for precision, graph in (("fp32", model), ("fp16", to_half(model)), ("int8", int8(model))):
        onnx.save(graph, tmp_path / f"{precision}.onnx")
        built = build(trt, tmp_path / f"{precision}.onnx", shapes, precision, BuildOptions(batch=(1, 2, 4)))
        assert len(built.plan) > 1 << 19
