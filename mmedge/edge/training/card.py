"""model.json of the shipped bundles: STAC items of the MLM extension, and the licence notices beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import rasterio
from rasterio.warp import transform_bounds

from mmedge.bundle import LandClass, Tiling
from mmedge.edge.evaluation.blocks import Blocks
from mmedge.edge.item import bands_of
from mmedge.edge.models.network import Network
from mmedge.edge.training.facts import cost_of, scaling_of
from mmedge.edge.training.item import model_item
from mmedge.edge.training.samples import CLASS_VALUES, OPTICAL, SAR
from mmedge.edge.training.split import BLOCK_PX, part_of_pixels
from mmedge.grid import Grid
from mmedge.modality import Derive, Modality

# Windows where attention reaches two tokens: it sees 32 px, and 40 with what terrain looks at. A halo of 16 px is not
# exact, but no map changes by more than some 1 % when the lattice moves (docs/decisions/0004).
NEAR_TILING = Tiling(kind="attention", window_px=112, halo_px=16, align_px=80, token_px=8)
CLASSES = {
    1: ("water", (0x41, 0x9B, 0xDF)),
    2: ("trees", (0x39, 0x7D, 0x49)),
    3: ("flooded vegetation", (0x7A, 0x87, 0xC6)),
    4: ("crops", (0xE4, 0x96, 0x35)),
    5: ("built area", (0xC4, 0x28, 0x1B)),
    6: ("bare ground", (0xA5, 0x9B, 0x8F)),
    9: ("rangeland", (0xE3, 0xE2, 0xC3)),
}
DESCRIPTION = (
    "Small demonstration model: land cover in 7 classes at 10 m from whatever of Sentinel-2, Sentinel-1 and a digital "
    "elevation model is there. It was trained on three scenes of 2.24 km and 677 single pixels: it is no global "
    "land-cover model, and no model that is could be made from these data. Its labels are themselves a model product."
)
LICENSE = """\
Creative Commons Attribution-ShareAlike 4.0 International (CC-BY-SA-4.0)
https://creativecommons.org/licenses/by-sa/4.0/legalcode

Trained by the mmedge maintainers on:
- TerraMesh example scenes (B. Blumenstiel et al., "TerraMesh: A Planetary Mosaic of Multimodal Earth Observation Data",
  arXiv:2504.11172), CC-BY-SA-4.0, from the public repository IBM/terramind. Contains modified Copernicus Sentinel data;
  elevation: Copernicus DEM; labels: ESRI / Impact Observatory annual land cover (CC-BY-4.0).
- Labelled pixels of the public repository WorldCereal/presto-worldcereal. Contains modified Copernicus Sentinel data
  2016-2021; labels: ESA WorldCover (CC-BY-4.0).
- Shapes of holes: cloud masks of the public repository sentinel-hub/eo-learn (MIT). Contains modified Copernicus
  Sentinel data 2015-2017.
"""
GALILEO = """
The frozen transformer inside is Galileo-nano (G. Tseng et al., arXiv:2502.09356), under the MIT licence:

"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What tells one shipped model from another."""

    name: str
    title: str
    pretrained: str | None
    derive: Derive
    notice: str = ""

    @property
    def modalities(self) -> tuple[Modality, ...]:
        return (
            Modality(name="optical", bands=OPTICAL, unit="reflectance", gsd_m=10.0),
            Modality(name="sar", bands=SAR, unit="dB", gsd_m=10.0),
            Modality(name="elevation", bands=("DEM",), unit="m", gsd_m=10.0, derive=self.derive),
        )

    @property
    def licence(self) -> str:
        return f"Weights of {self.name}: {LICENSE}{self.notice}"

    @property
    def fields(self) -> dict[str, dict[str, Any]]:
        """STAC 1.1 allows bands in an item's properties where an asset has some."""
        return {".safetensors": {"bands": bands_of(self.modalities)}}


TERRA = Card(
    name="mamol-terra",
    title="MaMOL on Galileo-nano, TerraMesh",
    pretrained="Galileo-nano (nasaharvest/galileo, MIT), frozen",
    derive="relief",
    notice=GALILEO,
)
NEAR = replace(TERRA, name="mamol-near", title="MaMOL on Galileo-nano, near tokens alone, TerraMesh", derive="terrain")
CONV = Card(name="mamol-conv", title="MaMOL on a convolutional U-Net, TerraMesh", pretrained=None, derive="terrain")


def item(
    card: Card,
    network: Network,
    tiling: Tiling,
    scenes: Sequence[Path],
    *,
    accuracy: Mapping[str, Any],
    domain: Mapping[str, Any],
) -> dict[str, Any]:
    """The STAC item without its assets. `scenes`: folders of the training scenes; `accuracy`: what was measured."""
    return model_item(
        card.name,
        card.modalities,
        [LandClass(value, *CLASSES[value]) for value in CLASS_VALUES],
        tiling,
        boxes=[_box(folder / "LULC.tif") for folder in scenes],
        scaling=scaling_of(network),
        properties={
            "title": card.title,
            "description": DESCRIPTION,
            "datetime": None,
            "start_datetime": "2016-01-01T00:00:00Z",
            "end_datetime": "2023-06-10T23:59:59Z",
            "license": "CC-BY-SA-4.0",
            "providers": [{"name": "The mmedge maintainers", "roles": ["producer", "processor"]}],
            "mlm:architecture": "MaMOL",
            "mlm:total_parameters": sum(p.numel() for p in network.parameters()),
            "mlm:pretrained": card.pretrained is not None,
            "mlm:pretrained_source": card.pretrained,
            "mlm:hyperparameters": json.loads(json.dumps(network.recipe)),
            "mmedge:training": {"scenes": [training_of(folder) for folder in scenes]},
            "mmedge:accuracy": dict(accuracy),
            "mmedge:domain": dict(domain),
            "mmedge:cost": cost_of(network, tiling),
        },
    )


def training_of(folder: Path) -> dict[str, Any]:
    """Which squares of a training scene train, validate and test."""
    with rasterio.open(folder / "LULC.tif") as src:
        grid = Grid(src.height, src.width, tuple(src.transform)[:6], src.crs.to_wkt())
    parts = part_of_pixels(folder.name)[::BLOCK_PX, ::BLOCK_PX]
    return {"name": folder.name, **Blocks(grid=grid, block_px=BLOCK_PX, parts=parts).document()}


def _box(path: Path) -> tuple[float, float, float, float]:
    with rasterio.open(path) as src:
        west, south, east, north = transform_bounds(src.crs, "EPSG:4326", *src.bounds)
    return round(west, 6), round(south, 6), round(east, 6), round(north, 6)
