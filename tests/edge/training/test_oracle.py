"""The oracle of a method on a scene: MARS by hand, nothing for a method that has none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import Affine

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from mmedge.bundle import Bundle, LandClass, Tiling  # noqa: E402
from mmedge.edge.export import WEIGHTS, save_weights  # noqa: E402
from mmedge.edge.models.network import Network  # noqa: E402
from mmedge.edge.models.registry import build  # noqa: E402
from mmedge.edge.training.oracle import oracle_accuracy  # noqa: E402
from mmedge.geo_io.arrays import SensorArray, scene_from_arrays  # noqa: E402
from mmedge.geo_io.scene import Scene  # noqa: E402
from mmedge.modality import Modality  # noqa: E402

MODALITIES = (
    Modality(name="optical", bands=("B02", "B03"), unit="reflectance", gsd_m=10),
    Modality(name="sar", bands=("VV",), unit="dB", gsd_m=10),
)


def bundle(folder: Path, method: str) -> tuple[Bundle, Network]:
    torch.manual_seed(0)
    sizes = {"widths": [4, 8], "width": 4, "depth": 1, "kernel": 3}
    network = build({"method": method, "channels": {"optical": 2, "sar": 1}, "classes": 2, "encoder_options": sizes})
    (folder / "graphs").mkdir()
    save_weights(network, folder / "graphs" / WEIGHTS)
    made = Bundle(
        folder=folder,
        name=method,
        sha256="",
        modalities=MODALITIES,
        classes=(LandClass(1, "a", (0, 0, 0)), LandClass(2, "b", (0, 0, 0))),
        tiling=Tiling(kind="attention", window_px=32, halo_px=4, align_px=24, token_px=2),
        nodata=255,
        item={"properties": {}},
    )
    return made, network.eval()


def scene() -> Scene:
    """One core of the lattice, with something around it; the radar saw the left part alone."""
    rng = np.random.default_rng(0)
    valid = np.zeros((24, 24), bool)
    valid[:, :14] = True
    arrays = {
        "optical": SensorArray(data=rng.uniform(0, 0.3, (2, 24, 24)), bands=["B02", "B03"]),
        "sar": SensorArray(data=rng.normal(-12, 3, (1, 24, 24)), bands=["VV"], valid=valid),
    }
    return scene_from_arrays(
        arrays, MODALITIES, transform=Affine(10, 0, 240 * 100, 0, -10, 240 * 500), crs="EPSG:32718"
    )


def test_the_oracle_of_mars_by_hand(tmp_path: Path) -> None:
    made, network = bundle(tmp_path, "mars")
    there = scene()
    labels = np.random.default_rng(1).integers(-1, 2, (24, 24)).astype(np.int16)
    found = oracle_accuracy(made, there, labels)
    assert set(found) == {"optical", "sar", "optical+sar"}
    tile = there.read(there.grid.window.grow(4))
    valid = {m: torch.from_numpy(tile.valid[m])[None, None] for m in ("optical", "sar")}
    data = {m: torch.where(valid[m], torch.from_numpy(tile.data[m])[None], 0.0) for m in valid}
    with torch.no_grad():
        logits = network.oracle(data, valid, torch.zeros(1, 32, 32, dtype=torch.long), torch.tensor([[False, True]]))
    answer = logits.argmax(1)[0, 4:28, 4:28].numpy()
    known = (labels >= 0) & tile.valid["sar"][4:28, 4:28]
    assert found["sar"] == round(float((answer == labels)[known].mean()), 4)


def test_a_method_without_an_oracle(tmp_path: Path) -> None:
    made, _ = bundle(tmp_path, "dropout")
    assert oracle_accuracy(made, scene(), np.zeros((24, 24), np.int16)) == {}
