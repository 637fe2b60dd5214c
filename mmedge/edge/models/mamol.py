"""MaMOL in dense mode: one frozen Galileo tower a sensor, adapters that know which sensors each token has.

Gao, Qu, Dong, "Rethinking Efficient Mixture-of-Experts for Remote Sensing Modality-Missing Classification",
arXiv:2511.11460. Differences from the paper: every token is classified, availability is decided for each token from
the pixels, the frozen backbone is Galileo-nano, and a small path at full resolution is added.

Inputs, for each sensor that is there: data (B, C, H, W) float32 in model units and valid (B, 1, H, W) bool. H and W are
multiples of 8 px, and at most 64 where attention looks over the whole window. Output: logits (B, classes, H, W). A
sensor left out and one that is nowhere valid give the same logits; the first costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmedge.edge.models.adapters import Adapter, AdapterConfig
from mmedge.edge.models.galileo import DEPTH, MASKED, WIDTH, Block, Galileo, group_position
from mmedge.edge.models.network import Inlet, Maps, Network
from mmedge.edge.models.pixel_path import PixelPath
from mmedge.modality import Derive

TOKEN_PX, WINDOW_PX, GRID = 8, 64, 8
MONTH = 6  # Galileo wants one; maps are made from any date, so it is fixed
# Band groups of Galileo that each sensor feeds, as channels of our input.
TOWERS: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "optical": {"S2_RGB": (0, 1, 2), "S2_Red_Edge": (3, 4, 5), "S2_NIR_10m": (6,), "S2_SWIR": (7, 8)},
    "sar": {"S1": (0, 1)},
    "elevation": {"SRTM": (0, 1)},
}
# Galileo's shift and div of each channel, in our units: it takes digital numbers (reflectance x 10000), dB, degrees.
# Height is ours, a pair for each way to derive it: shift and div give the training windows Galileo's usual range, mean
# .5 and deviation .25.
SCALE: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "optical": (
        (-0.0440067, -0.0488195, -0.0842259, -0.0550580, 0.0090182, 0.0237713, 0.0212379, -0.0057044, -0.0485955),
        (0.3670817, 0.3653195, 0.4370715, 0.4188882, 0.4192041, 0.4574761, 0.4395917, 0.4583910, 0.3920972),
    ),
    "sar": ((-21.5030159, -30.3161225), (19.5485831, 22.9210813)),
    "relief": ((-3.0, -10.4047209), (16.0, 32.6696272)),
    "terrain": ((-2.8, -10.4047209), (5.6, 32.6696272)),
}
# x / (1 + |x| squash): heights keep their scale near 0 and never exceed 20 m.
SQUASH: Mapping[str, tuple[float, ...]] = {"relief": (0.05, 0.0), "terrain": (0.05, 0.0)}
SENSORS = tuple(TOWERS)
CHANNELS = {m: sum(map(len, groups.values())) for m, groups in TOWERS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class MaMOLConfig(AdapterConfig):
    """Sizes of MaMOL on Galileo.

    `positions`: tokens know their place in the window; without, all take the mean of Galileo's place embeddings, so
    that a class depends less on where the lattice happens to lie. `reaches`: how many tokens away each layer's
    attention looks, None: over the window.
    """

    classes: int = 7
    adapted_layers: int = 2
    head_width: int = 96
    pixel_width: int = 32
    positions: bool = False
    reaches: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.reaches is not None and (len(self.reaches) != DEPTH or min(self.reaches) < 0):
            raise ValueError(f"reaches: {DEPTH} numbers >= 0, one a layer, not {self.reaches}")
        if self.reaches is not None and self.positions:
            raise ValueError("a network of limited reach knows no place in its window: positions must be false")


class Stem(Inlet):
    """Normalisation and patches of one sensor. Nothing under an invalid pixel reaches what comes after."""

    shift: Tensor
    div: Tensor
    squash: Tensor

    def __init__(self, sensor: str, derive: Derive = "relief", *, one_place: bool = False) -> None:
        super().__init__(sensor)
        self.groups, self.one_place = TOWERS[sensor], one_place
        self.kind = derive if sensor == "elevation" else sensor  # of SCALE and SQUASH
        shift, div = SCALE[self.kind]
        self.register_buffer("mean", torch.zeros(len(shift), 1, 1))
        self.register_buffer("shift", torch.tensor(shift).view(-1, 1, 1))
        self.register_buffer("div", torch.tensor(div).view(-1, 1, 1))
        self.register_buffer("squash", torch.tensor(SQUASH.get(self.kind, (0.0,) * len(shift))).view(-1, 1, 1))
        self.patch = nn.ModuleDict(
            {g: nn.Conv2d(len(bands), WIDTH, TOKEN_PX, TOKEN_PX) for g, bands in self.groups.items()}
        )
        for g in self.groups:
            self.register_buffer(f"place_{g}", torch.zeros(GRID, GRID, WIDTH))

    def normalise(self, x: Tensor, valid: Tensor) -> Tensor:
        """Galileo's scale; the training mean where a pixel is invalid."""
        x = torch.where(valid, x, self.mean)
        if self.kind in SQUASH:
            x = x / (1 + x.abs() * self.squash)
        return (x - self.shift) / self.div

    def tokens(self, x: Tensor, valid: Tensor, share: Tensor) -> Tensor:
        """Normalised x -> (B, groups * L, D). Invalid pixels of a token take the mean of its valid ones."""
        _, _, height, width = x.shape
        v = valid.to(x.dtype)
        level = F.avg_pool2d(x * v, TOKEN_PX) / share.clamp(min=1 / TOKEN_PX**2)
        x = torch.where(valid, x, F.interpolate(level, scale_factor=float(TOKEN_PX), mode="nearest"))
        rows, cols = height // TOKEN_PX, width // TOKEN_PX
        parts = []
        for g, (first, *rest) in self.groups.items():
            patches = self.patch[g](x[:, first : first + 1 + len(rest)]).flatten(2).transpose(1, 2)
            place = self.get_buffer(f"place_{g}")
            place = place[0, 0] if self.one_place else place[:rows, :cols].reshape(rows * cols, WIDTH)
            parts.append(patches + place)
        return torch.cat(parts, dim=1)


class MaMOL(Network):
    """The network. `MaMOL.on(galileo)` starts it from pre-trained weights."""

    method = "mamol"
    channels = CHANNELS
    token_px = TOKEN_PX

    def __init__(self, config: MaMOLConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or MaMOLConfig()
        self.classes = config.classes
        self.sees_whole_window = config.reaches is None
        options = {k: v for k, v in asdict(config).items() if k != "classes"}
        self.recipe = {
            "method": self.method,
            "encoder": "galileo",
            "channels": CHANNELS,
            "classes": config.classes,
            "options": options,
        }
        self.stems = nn.ModuleDict({m: Stem(m, self.derive, one_place=not self.sees_whole_window) for m in SENSORS})
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.psi = nn.Linear(len(SENSORS), config.missing_width)
        self.adapters = nn.ModuleList(Adapter(config, WIDTH, len(SENSORS)) for _ in range(config.adapted_layers))
        self.fuse = nn.ModuleDict({m: nn.Linear(WIDTH, config.head_width, bias=False) for m in SENSORS})
        self.fuse_missing = nn.Linear(config.missing_width, config.head_width)
        self.context = nn.Linear(config.head_width, config.classes + config.pixel_width)
        self.pixel_path = PixelPath(CHANNELS, config.classes, config.pixel_width)
        for part in (self.stems, self.blocks, self.norm):
            part.requires_grad_(False)

    @classmethod
    def on(cls, galileo: Galileo, config: MaMOLConfig | None = None) -> MaMOL:
        """A model whose stems and blocks are `galileo`'s. The training means of the stems remain to be set."""
        model = cls(config)
        model.blocks.load_state_dict(galileo.blocks.state_dict())
        model.norm.load_state_dict(galileo.norm.state_dict())
        for sensor in SENSORS:
            stem = model.stem(sensor)
            for g in stem.groups:
                stem.patch[g].load_state_dict(galileo.patch_embed(g).proj.state_dict())
                place = group_position(galileo, g, GRID, GRID, step=TOKEN_PX, month=MONTH)
                stem.get_buffer(f"place_{g}").copy_(place if model.config.positions else place.mean((0, 1)))
        return model

    def stem(self, sensor: str) -> Stem:
        return cast(Stem, self.stems[sensor])

    def forward(self, data: Maps, valid: Maps, *, uniform: bool = False) -> Tensor:
        """Logits (B, classes, H, W). `uniform` promises that every token has every sensor of `data`."""
        x = {m: self.stem(m).normalise(data[m], valid[m]) for m in data}
        share = {m: F.avg_pool2d(valid[m].float(), TOKEN_PX) for m in data}
        batch, _, height, width = next(iter(x.values())).shape
        seen = None if uniform else self._seen(share)
        missing = self.psi(1 - (self._present(data) if seen is None else seen))
        hidden = self.fuse_missing(missing)
        rows, cols = height // TOKEN_PX, width // TOKEN_PX
        for m in data:
            u = self._tower(m, self.stem(m).tokens(x[m], valid[m], share[m]), missing, seen, tuple(data), (rows, cols))
            hidden = hidden + self.fuse[m](u)
        if seen is not None:
            hidden = _borrow(hidden, seen.amax(-1, keepdim=True), rows, cols)
        coarse = self.context(F.gelu(hidden)).transpose(1, 2).reshape(batch, -1, rows, cols)
        fine = F.interpolate(coarse, scale_factor=float(TOKEN_PX), mode="bilinear", align_corners=False)
        classes = self.config.classes
        logits: Tensor = fine[:, :classes] + self.pixel_path(x, valid, fine[:, classes:])
        return logits

    def _tower(
        self,
        sensor: str,
        x: Tensor,
        missing: Tensor,
        seen: Tensor | None,
        present: tuple[str, ...],
        grid: tuple[int, int],
    ) -> Tensor:
        """Features of the sensor's tokens (B, L, D), mean over its band groups; 0 where it is not seen."""
        index, groups = SENSORS.index(sensor), len(TOWERS[sensor])
        where = tuple(SENSORS.index(m) for m in present)
        bias, every = None, seen
        if seen is not None:
            bias = ((1 - seen[..., index]) * MASKED).repeat(1, groups)[:, None, None]
            missing, every = missing.repeat(1, groups, 1), seen.repeat(1, groups, 1)
        plain = DEPTH - len(self.adapters)
        for i in range(DEPTH):
            x, z = self._attend(i, x, bias, (groups, *grid))
            x = x + cast(Block, self.blocks[i]).mlp(z)
            if i >= plain:
                x = x + self.adapters[i - plain](z, missing, index, every, where)
        u: Tensor = self.norm(x)
        if groups > 1:
            u = u.view(u.shape[0], groups, -1, WIDTH).mean(1)
        return u if seen is None else torch.where(seen[..., index : index + 1] > 0, u, 0.0)

    def _attend(self, layer: int, x: Tensor, bias: Tensor | None, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        block = cast(Block, self.blocks[layer])
        if self.config.reaches is None:
            return block.attend(x, bias)
        return block.attend_near(x, bias, shape, self.config.reaches[layer])

    def _present(self, data: Maps) -> Tensor:
        return torch.tensor([float(m in data) for m in SENSORS], device=self.psi.weight.device)

    def _seen(self, share: Maps) -> Tensor:
        """Which sensors each token has (B, L, sensors), 1 = at least half of its pixels are valid."""
        some = next(iter(share.values()))
        bits = [(share[m] >= 0.5).to(some.dtype) if m in share else torch.zeros_like(some) for m in SENSORS]
        return torch.cat(bits, dim=1).flatten(2).transpose(1, 2)


def _borrow(hidden: Tensor, some: Tensor, rows: int, cols: int) -> Tensor:
    """Where a token has no sensor (`some` 0), the mean of its neighbours that have one, for its few valid pixels."""
    batch, _, width = hidden.shape
    grid = torch.cat([hidden * some, some], dim=-1).transpose(1, 2).reshape(batch, width + 1, rows, cols)
    around = F.avg_pool2d(grid, 3, 1, 1).flatten(2).transpose(1, 2)
    total, count = around[..., :width], around[..., width:]
    neighbours = total / count.clamp(min=0.01)
    return torch.where((some == 0) & (count > 0), neighbours, hidden)
