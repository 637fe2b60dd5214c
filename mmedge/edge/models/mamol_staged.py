"""MaMOL where no pre-trained backbone fits the sensors: train one on complete data, freeze it, adapt it.

Gao, Qu, Dong, arXiv:2511.11460. Adapters sit beside the 1 x 1 feed-forward layers of any encoder. In a sensor's tower
the expert of that sensor answers (variant B) or those of all that are there (A); after fusion always the latter, for
there a feature belongs to no sensor. Availability is decided for each square of a block's stride.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mmedge.edge.models.adapters import Adapter, AdapterConfig, apply
from mmedge.edge.models.encoders import Beside, Encoder, share_seen
from mmedge.edge.models.network import Maps
from mmedge.edge.models.plain import Plain, Task

Adapted = Literal["all", "coarsest", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedConfig(AdapterConfig):
    """`adapted`: which blocks have an adapter. At the coarsest stride they cost least, and see most."""

    rank: int = 4
    gate_width: int = 16
    adapted: Adapted = "all"

    def __post_init__(self) -> None:
        if self.adapted not in get_args(Adapted):
            raise ValueError(f"adapted: one of {', '.join(get_args(Adapted))}, not {self.adapted}")


class StagedMaMOL(Plain):
    """A plain network with adapters. Stage 0 trains it on complete data; stage 1 freezes its blocks, adapters train.

    Fusion and head train in both: in the paper they are one layer, which is trained.
    """

    stages = 2

    def __init__(self, encoder: Encoder, classes: int, task: Task = "map", config: StagedConfig | None = None) -> None:
        super().__init__(encoder, classes, task)
        self.config = config = config or StagedConfig()
        strides = {"all": encoder.strides, "coarsest": encoder.strides[-1:]}.get(config.adapted, ())
        self.sites = {name: site for name, site in encoder.sites().items() if site.stride in strides}
        self.psi = nn.Linear(len(self.sensors), config.missing_width)
        self.adapters = nn.ModuleDict(
            {
                _key(name): Adapter(config, site.width, len(self.sensors), at_once=True)
                for name, site in self.sites.items()
            }
        )
        self.adapting = True

    def begin_stage(self, stage: int) -> None:
        self.adapting = stage > 0
        self.encoder.requires_grad_(not self.adapting)
        self.encoder.join.requires_grad_(True)
        self.adapters.requires_grad_(self.adapting)
        self.psi.requires_grad_(self.adapting and self.config.aware and self.config.dynamic > 0)

    def losses(self, data: Maps, valid: Maps, labels: Tensor, kept: Tensor) -> dict[str, Tensor]:
        return super().losses(data, valid, labels, kept if self.adapting else torch.ones_like(kept))

    def beside(self, valid: Maps, *, uniform: bool) -> Beside | None:
        """The adapters of this input; None in stage 0."""
        if not self.adapting:
            return None
        present = tuple(i for i, m in enumerate(self.sensors) if m in valid)
        strides = sorted({site.stride for site in self.sites.values()})
        seen = {s: None if uniform else self._seen(valid, s) for s in strides}
        here = torch.tensor([float(m in valid) for m in self.sensors], device=self.psi.weight.device)
        if self.encoder.beside_maps:
            here = here.view(1, -1, 1, 1)
        missing = {s: apply(self.psi, 1 - (here if bits is None else bits)) for s, bits in seen.items()}

        def adapt(name: str, z: Tensor) -> Tensor | None:
            site = self.sites.get(name)
            if site is None:
                return None
            sensor = None if site.sensor is None else self.sensors.index(site.sensor)
            y: Tensor = self.adapters[_key(name)](z, missing[site.stride], sensor, seen[site.stride], present)
            return y

        return adapt

    def _seen(self, valid: Maps, stride: int) -> Tensor:
        """Which sensors each square has, 1 = it has: (B, squares, sensors), or (B, sensors, h, w) beside maps."""
        bits = {m: share_seen(v, stride) for m, v in valid.items()}
        absent = torch.zeros_like(next(iter(bits.values())))
        maps = torch.cat([bits.get(m, absent) for m in self.sensors], dim=1).float()
        return maps if self.encoder.beside_maps else maps.flatten(2).transpose(1, 2)


def _key(name: str) -> str:
    """A block's name as a key of a ModuleDict."""
    return name.replace(".", "_")
