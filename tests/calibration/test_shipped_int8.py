"""The int8 graphs that ship: one for every fp32 graph, within the gate and the size that were promised."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio

from mmedge.bundle import Bundle, builtin_bundles, open_bundle
from mmedge.edge.infer import infer
from mmedge.edge.parity import real_batches
from mmedge.edge.runtime.open import open_runtime
from mmedge.edge.runtime.session import Engines, GraphKey, stored_graph
from mmedge.errors import MachineError
from mmedge.geo_io.scene import open_scene
from mmedge.modality import Availability

LARGEST_BYTES = 30_000_000


@pytest.fixture(scope="module", params=builtin_bundles())
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return open_bundle(request.param)


def test_every_graph_is_there_and_the_bundle_is_small(bundle: Bundle) -> None:
    files = [path for path in bundle.folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < LARGEST_BYTES
    for key in GraphKey.every(bundle):
        assert stored_graph(bundle, key, "int8").stat().st_size < 300_000


def test_the_gate_was_passed_with_the_weights_that_ship(bundle: Bundle) -> None:
    """The fp32 scores of the gate are those of the bundle's own test: quantize anew when the weights change."""
    properties = bundle.item["properties"]
    quantization, test = properties["mmedge:quantization"], properties["mmedge:accuracy"]["test"]
    assert len(quantization["rows"]) == len(test) == 7
    for row in quantization["rows"]:
        assert row["drop"] <= quantization["max_drop"] == 0.5
        assert row["pixels"] % test[row["availability"]]["pixels"] == 0  # a convolutional network is judged twice
        assert row["fp32_oa"] == pytest.approx(100 * test[row["availability"]]["oa"], abs=1.0)


def test_absent_sensors_cost_nothing(bundle: Bundle) -> None:
    """Where a sensor is missing, at least 80 % of what its tower costs is saved.

    A tower costs what its sensor costs alone, but for the common part, which two sensors share.
    """
    cost = bundle.item["properties"]["mmedge:cost"]
    macs = {str(a): cost[str(a)]["macs"] for a in Availability.every(bundle.order)}
    for sensor in bundle.order:
        rest = [name for name in bundle.order if name != sensor]
        pair = "+".join(name for name in bundle.order if name != rest[1])
        common = macs[sensor] + macs[rest[0]] - macs[pair]
        assert macs["+".join(bundle.order)] - macs["+".join(rest)] >= 0.8 * (macs[sensor] - max(0, common))


@pytest.mark.parametrize("available", [("optical", "sar", "elevation"), ("sar",)])
def test_the_int8_map_is_that_of_fp32(bundle: Bundle, chile: Path, tmp_path: Path, available: tuple[str, ...]) -> None:
    maps, wishes = [], {"available": available, "model": bundle.folder}
    for precision in ("fp32", "int8"):
        record = infer(chile / "scene.tif", tmp_path / f"{precision}.tif", precision=precision, **wishes)
        with rasterio.open(record.outputs.map) as src:
            maps.append(src.read(1))
    agreement = (maps[0] == maps[1]).mean()
    assert 0.95 <= agreement < 1
    assert np.array_equal(maps[0] == 255, maps[1] == 255)


def test_the_batch_changes_next_to_no_int8_class(bundle: Bundle, chile: Path) -> None:
    """OpenVINO chooses int8 kernels by shape and CPU."""
    tiling = replace(bundle.tiling, window_px=min(bundle.tiling.window_px, 128))  # the example has one window of 640
    small, radar = replace(bundle, tiling=tiling), Availability.of(("sar",), bundle.order)
    with open_scene(chile / "scene.tif", bundle.modalities) as scene:
        batch = next(real_batches(scene, small, radar, size=6))
    runtime, made = open_runtime("auto", precision="int8", threads=1)[0], []
    for size in (6, 1):
        session = Engines(small, runtime, batch=size).session(batch.key)
        parts = [{name: data[i : i + size] for name, data in batch.feeds.items()} for i in range(0, 6, size)]
        made.append(np.concatenate([session.run(feeds).copy() for feeds in parts]))
    assert (made[0].argmax(axis=1) == made[1].argmax(axis=1)).mean() > 0.999


def test_where_int8_would_saturate_it_is_computed_in_fp32(
    bundle: Bundle, chile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmedge.edge.device.cpu_flags", lambda: ["avx2", "avx512f"])
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with pytest.raises(MachineError, match="no VNNI"):
        open_runtime("openvino", precision="int8", threads=1)
    tiling = replace(bundle.tiling, window_px=min(bundle.tiling.window_px, 128))
    small, radar = replace(bundle, tiling=tiling), Availability.of(("sar",), bundle.order)
    with open_scene(chile / "scene.tif", bundle.modalities) as scene:
        batch = next(b for b in real_batches(scene, small, radar, size=4) if not b.key.mixed)
    classes = {}
    for precision in ("fp32", "int8"):
        runtime, choice = open_runtime("auto", precision=precision, threads=1)
        assert choice.backend == ("onnxruntime" if precision == "int8" else "openvino")
        classes[precision] = Engines(small, runtime, batch=4).session(batch.key).run(batch.feeds).argmax(1)
    assert 0.95 < (classes["int8"] == classes["fp32"]).mean() < 1
