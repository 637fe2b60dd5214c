"""Scales against brute force; observers against what numpy counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("safetensors")

from mmedge.bundle import open_bundle
from mmedge.calibration.observe import BINS, Histogram, observe, with_outputs
from mmedge.calibration.qdq import linear_layers, load_graph
from mmedge.calibration.scales import LEVELS, METHODS, percentile
from mmedge.calibration.windows import CalibrationError
from mmedge.edge.runtime.session import GraphKey, input_shapes, stored_graph


def histogram(values: np.ndarray) -> Histogram:
    top = float(np.abs(values).max())
    return Histogram(np.histogram(np.abs(values), BINS, (0, top))[0], top)


def squared_error(values: np.ndarray, clip: float) -> float:
    step = clip / (LEVELS - 1)
    return float(((np.clip(np.rint(values / step), -LEVELS, LEVELS - 1) * step - values) ** 2).mean())


@pytest.fixture(scope="module")
def heavy() -> np.ndarray:
    """Activations of a transformer: a normal bulk and a few outliers twenty times as far out."""
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(size=200_000), rng.normal(size=40) * 20])


def test_mse_is_the_best_of_all_clips(heavy: np.ndarray) -> None:
    clip = METHODS["mse"](histogram(heavy))
    best = min(squared_error(heavy, c) for c in np.linspace(1, np.abs(heavy).max(), 200))
    assert squared_error(heavy, clip) <= 1.02 * best


def test_clipping_methods_ignore_outliers_and_minmax_does_not(heavy: np.ndarray) -> None:
    clips = {name: method(histogram(heavy)) for name, method in METHODS.items()}
    assert clips["minmax"] == np.abs(heavy).max()
    assert 2.5 < clips["entropy"] < clips["percentile"] < clips["mse"] < 0.9 * clips["minmax"], clips


def test_uniform_values_are_not_clipped() -> None:
    values = np.random.default_rng(1).uniform(-3, 3, 300_000)
    assert all(method(histogram(values)) > 2.9 for method in METHODS.values())


def test_percentile_is_that_of_numpy(heavy: np.ndarray) -> None:
    found = percentile(histogram(heavy), 99.0)
    assert found == pytest.approx(np.percentile(np.abs(heavy), 99), abs=2 * np.abs(heavy).max() / BINS)


def test_observers_count_what_the_graph_computes(small: Path) -> None:
    bundle = open_bundle(small)
    key = next(k for k in GraphKey.every(bundle) if str(k) == "optical+sar")
    model, _ = load_graph(stored_graph(bundle, key, "fp32"))
    rng = np.random.default_rng(2)
    batches = [
        {
            name: np.ones(shape, bool) if name.endswith("_valid") else rng.normal(size=shape).astype(np.float32)
            for name, shape in input_shapes(bundle, key, 1).items()
        }
        for _ in range(2)
    ]
    names = sorted({layer.input for layer in linear_layers(model)})
    assert names == ["hidden", "optical_in", "sar_in"]
    found = observe(model, names, batches)
    session = with_outputs(model, names)
    for i, name in enumerate(names):
        values = np.concatenate([session.run(names, feeds)[i].ravel() for feeds in batches])
        assert found[name].top == np.abs(values).max()
        expected = np.histogram(np.abs(values), BINS, (0, found[name].top))[0]
        assert found[name].counts.sum() == values.size  # small enough that every value counts
        assert np.abs(found[name].counts.cumsum() - expected.cumsum()).max() <= 4  # float32 edges of bins


def test_nothing_and_not_a_number_are_errors(small: Path) -> None:
    bundle = open_bundle(small)
    key = next(k for k in GraphKey.every(bundle) if str(k) == "sar")
    model, _ = load_graph(stored_graph(bundle, key, "fp32"))
    with pytest.raises(CalibrationError, match="nothing"):
        observe(model, ["sar_in"], [])
    feeds = {
        n: np.ones(s, bool if n.endswith("_valid") else np.float32) for n, s in input_shapes(bundle, key, 1).items()
    }
    feeds["sar"][0, 0, 5, 5] = np.nan
    with pytest.raises(CalibrationError, match="sar_in"):
        observe(model, ["sar_in"], [feeds])
