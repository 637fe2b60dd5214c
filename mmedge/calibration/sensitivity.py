"""How much noise each layer adds to the logits when it alone is int8: which layers stay float, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import openvino as ov

from mmedge.calibration.observe import with_outputs
from mmedge.calibration.qdq import Layer, quantized
from mmedge.edge.device import sums_int8
from mmedge.edge.runtime.session import Feeds

FEWEST_PRODUCTS = 16
NOISY_DB = 30.0  # a thousandth of the logits' power: about 1 % of the pixels change class, whatever accuracy says


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """One layer alone in int8: signal to noise of the logits, and share of the pixels that change class."""

    layer: str
    sqnr_db: float
    changed: float

    def why(self) -> str:
        return f"alone in int8: {self.sqnr_db:.1f} dB, changes {self.changed:.2%} of the classes"


def too_small(layers: Sequence[Layer]) -> dict[str, str]:
    """Layers that int8 cannot speed up, and why: they stay float whatever their noise."""
    return {
        layer.name: f"{layer.products} products an output: nothing to gain"
        for layer in layers
        if layer.products < FEWEST_PRODUCTS
    }


def sensitivities(
    model: onnx.ModelProto, layers: Sequence[Layer], clips: Mapping[str, float], batches: Sequence[Feeds]
) -> list[Sensitivity]:
    """Every layer of a graph, the most sensitive first."""
    reference = _logits(model, batches)
    power, top = float((reference**2).mean()), reference.argmax(1)
    found = []
    for name in sorted({layer.name for layer in layers}):
        alone = _logits(quantized(model, [layer for layer in layers if layer.name == name], clips), batches)
        noise = max(float(((alone - reference) ** 2).mean()), 1e-30)
        found.append(Sensitivity(name, float(10 * np.log10(power / noise)), float((alone.argmax(1) != top).mean())))
    return sorted(found, key=lambda s: s.sqnr_db)


def worst(*rankings: Sequence[Sensitivity]) -> list[Sensitivity]:
    """One ranking of several: every layer where it is noisiest, the most sensitive first."""
    found: dict[str, Sensitivity] = {}
    for s in sorted((s for ranking in rankings for s in ranking), key=lambda s: s.sqnr_db):
        found.setdefault(s.layer, s)
    return list(found.values())


def _logits(model: onnx.ModelProto, batches: Sequence[Feeds]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """In OpenVINO, which does more with Q/DQ than ONNX Runtime: it moves them across concatenations."""
    if not sums_int8():  # there OpenVINO's int8 is of no use, and ONNX Runtime computes it in fp32
        session = with_outputs(model, ())
        return np.concatenate([session.run(["logits"], dict(feeds))[0] for feeds in batches]).astype(np.float64)
    core = ov.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", options)
    return np.concatenate([compiled(dict(feeds))["logits"].copy() for feeds in batches]).astype(np.float64)
