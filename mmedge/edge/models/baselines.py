"""What a method has to beat, under the same roof: encoder, sensors and budget are the same, only the idea lacks.

Modality dropout is `Plain` (or `ModalityDropout` on Galileo, beside plain adapters of MaMOL's size); impute-all is DyMo
that believes every recovered sensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmedge.edge.models.adapters import Adapter
from mmedge.edge.models.encoders import Encoder, share_seen
from mmedge.edge.models.galileo import WIDTH
from mmedge.edge.models.mamol import SENSORS, MaMOL, MaMOLConfig
from mmedge.edge.models.network import Inlet, Maps, Network
from mmedge.edge.models.plain import Plain, Task
from mmedge.edge.training.missingness import patterns


class Fill(Plain):
    """Trained on complete data; what lacks is filled with zeros in model units, or with the training mean.

    Filled pixels pass for valid, so an absent sensor costs as much as one that is there.
    """

    def __init__(self, encoder: Encoder, classes: int, task: Task = "map", *, value: Literal["zero", "mean"]) -> None:
        super().__init__(encoder, classes, task)
        self.value = value
        self.inlets = {part.sensor: part for part in encoder.modules() if isinstance(part, Inlet)}

    def forward(self, data: Maps, valid: Maps, *, uniform: bool = False) -> Tensor:
        first = next(iter(valid.values()))
        filled, every = {}, torch.ones_like(first)
        for m, channels in self.channels.items():
            value = self.inlets[m].mean if self.value == "mean" else torch.zeros(channels, 1, 1, device=first.device)
            shape = first.shape[0], channels, *first.shape[2:]
            filled[m] = torch.where(valid[m], data[m], value) if m in data else value.expand(shape)
        return super().forward(filled, dict.fromkeys(filled, every), uniform=True)

    def losses(self, data: Maps, valid: Maps, labels: Tensor, kept: Tensor) -> dict[str, Tensor]:
        return super().losses(data, valid, labels, torch.ones_like(kept))


class Specialists(Network):
    """A network for every availability, trained for it alone: the upper bound that a user would train and store.

    Where squares differ in what they have, every specialist runs and each square takes its own.
    """

    def __init__(self, make: Callable[[Mapping[str, int]], Plain], channels: Mapping[str, int]) -> None:
        super().__init__()
        self.channels = dict(channels)
        networks = {"+".join(p): make({m: channels[m] for m in p}) for p in patterns(self.sensors)}
        self.each = nn.ModuleDict(networks)
        one = networks[self.sensors[0]]
        self.classes, self.task = one.classes, one.task
        self.token_px, self.sees_whole_window = one.token_px, one.sees_whole_window

    def forward(self, data: Maps, valid: Maps, *, uniform: bool = False) -> Tensor:
        present = tuple(m for m in self.sensors if m in data)
        whole = self._one(present, data, valid, uniform)
        if uniform or len(present) == 1:
            return whole
        has = self._has({m: valid[m] for m in present})
        for some in patterns(present)[:-1]:
            mine = torch.stack([has[m] == (m in some) for m in present]).all(0)
            whole = torch.where(mine, self._one(some, data, valid, False), whole)
        return whole

    def losses(self, data: Maps, valid: Maps, labels: Tensor, kept: Tensor) -> dict[str, Tensor]:
        """Each example trains the specialist of what it keeps of what it has. `data` names every sensor."""
        total = labels.new_zeros((), dtype=torch.float32)
        has = torch.stack([kept[:, i] & valid[m].flatten(1).any(1) for i, m in enumerate(self.sensors)], dim=1)
        for pattern in torch.unique(has[has.any(1)], dim=0):
            rows = (has == pattern).all(1)
            some = tuple(m for m, keep in zip(self.sensors, pattern.tolist(), strict=True) if keep)
            logits = self._one(some, {m: data[m][rows] for m in some}, {m: valid[m][rows] for m in some}, False)
            total = total + F.cross_entropy(logits, labels[rows], ignore_index=-1, reduction="sum")
        return {"task": total / (labels >= 0).sum().clamp(min=1)}

    def _one(self, some: tuple[str, ...], data: Maps, valid: Maps, uniform: bool) -> Tensor:
        logits: Tensor = self.each["+".join(some)](
            {m: data[m] for m in some}, {m: valid[m] for m in some}, uniform=uniform
        )
        return logits

    def _has(self, valid: Maps) -> dict[str, Tensor]:
        """Where each sensor counts, in the shape of logits: (B, 1, H, W), or (B, 1).

        A square without sensors takes the specialist of what its window has.
        """
        window = {m: v.flatten(1).any(1, keepdim=True) for m, v in valid.items()}
        if self.task == "window":
            return window
        side = self.token_px
        here = {m: share_seen(v, side).repeat_interleave(side, 2).repeat_interleave(side, 3) for m, v in valid.items()}
        some = torch.stack(list(here.values())).any(0)
        return {m: here[m] | (~some & window[m][:, :, None, None]) for m in valid}


class PlainAdapter(nn.Module):
    """One bottleneck with as many parameters as MaMOL's adapter. It knows nothing of what is missing."""

    def __init__(self, config: MaMOLConfig) -> None:
        super().__init__()
        budget = sum(p.numel() for p in Adapter(config, WIDTH, len(SENSORS)).parameters())
        width = (budget - WIDTH * (WIDTH + 1)) // (2 * WIDTH + 1)
        self.down = nn.Linear(WIDTH, width)
        self.up = nn.Linear(width, WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self, z: Tensor, missing: Tensor, sensor: int | None, seen: Tensor | None, present: tuple[int, ...]
    ) -> Tensor:
        """Takes what MaMOL's adapter takes and uses the tokens z (B, L, D) alone."""
        y: Tensor = self.out(F.gelu(self.up(self.down(z))))
        return y


class ModalityDropout(MaMOL):
    """MaMOL without its experts, router and missing embedding: plain modality dropout of equal size."""

    method = "dropout"

    def __init__(self, config: MaMOLConfig | None = None) -> None:
        super().__init__(config)
        self.adapters = nn.ModuleList(PlainAdapter(self.config) for _ in range(self.config.adapted_layers))
        for p in self.psi.parameters():
            nn.init.zeros_(p)
            p.requires_grad_(False)
        self.fuse_missing.weight.requires_grad_(False)
