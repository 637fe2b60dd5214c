"""MaMOL's adapters: a mixture of low-rank experts in parallel to a frozen feed-forward.

Gao, Qu, Dong, arXiv:2511.11460. Features are rows (B, L, D), or maps (B, D, h, w) where the layers beside them are
convolutions; then every product is a 1 x 1 convolution, for a change of layout costs more than the experts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ALWAYS = 20.0  # a logit whose sigmoid is 1 in float32


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterConfig:
    """Sizes. `variant` A: every available sensor's expert answers in every tower; B: the tower's own expert alone.

    Ablations: `dynamic` 0, no `shared` or no `special` expert, a router that is not `aware` of what is missing.
    """

    rank: int = 8
    dynamic: int = 2
    top_k: int = 2
    variant: Literal["A", "B"] = "B"
    shared: bool = True
    special: bool = True
    aware: bool = True
    missing_width: int = 8
    gate_width: int = 64


class Adapter(nn.Module):
    """Experts of three kinds: dynamic ones that a router weighs, a shared one, and one a sensor.

    `at_once`: where there are two dynamic experts, one product gives the weights of all ranks: the same function, in
    fewer operations. Graphs that were exported before it was there are another form of it.
    """

    spread: Tensor

    def __init__(self, config: AdapterConfig, width: int, sensors: int, *, at_once: bool = False) -> None:
        super().__init__()
        self.config = config
        self.at_once = at_once and config.dynamic == config.top_k == 2
        self.static = config.dynamic + config.shared  # experts of sensors come after these
        experts = self.static + (sensors if config.special else 0)
        if not experts:
            raise ValueError("an adapter needs an expert: to have no adapters, adapt no layer")
        if config.dynamic:
            self.gate_token = nn.Linear(width, config.gate_width)
            self.gate_missing = nn.Linear(config.missing_width, config.gate_width, bias=False) if config.aware else None
            self.gate_out = nn.Linear(config.gate_width, config.dynamic)
        self.down = nn.Parameter(torch.randn(experts, config.rank, width) * width**-0.5)
        self.up = nn.Parameter(torch.randn(experts, config.rank, width) * config.rank**-0.5)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)  # training starts at the frozen model
        nn.init.zeros_(self.out.bias)
        # Row i spreads the weight of expert i over its ranks.
        self.register_buffer("spread", torch.eye(experts).repeat_interleave(config.rank, 1), persistent=False)

    def gate(self, z: Tensor, missing: Tensor) -> Tensor:
        """Weights of the dynamic experts, in the place of D; those beyond the top k are 0, none is renormalised."""
        weights = torch.softmax(apply(self.gate_out, self._hidden(z, missing)), dim=_axis(z))
        if self.config.top_k >= self.config.dynamic:
            return weights
        floor = weights.topk(self.config.top_k, dim=_axis(z)).values.amin(_axis(z), keepdim=True)
        return torch.where(weights >= floor, weights, 0.0)

    def _hidden(self, z: Tensor, missing: Tensor) -> Tensor:
        hidden = apply(self.gate_token, z)
        if self.gate_missing is not None:
            hidden = hidden + apply(self.gate_missing, missing)
        return F.gelu(hidden)

    def _two(self, z: Tensor, missing: Tensor, ranks: int) -> Tensor:
        """The weights of two dynamic experts and of others that always answer, each for its `ranks` in all, at once.

        The softmax of two is the sigmoid of their difference; that of `ALWAYS` is exactly 1 in float32.
        """
        weight, bias = (w - w.flip(0) for w in (self.gate_out.weight, self.gate_out.bias))
        weight, bias = (w.repeat_interleave(self.config.rank, 0) for w in (weight, bias))
        rest = ranks - len(bias)
        weight = torch.cat([weight, weight.new_zeros(rest, weight.shape[1])])
        bias = torch.cat([bias, bias.new_full((rest,), ALWAYS)])
        return torch.sigmoid(_linear(self._hidden(z, missing), weight, bias))

    def forward(
        self, z: Tensor, missing: Tensor, sensor: int | None, seen: Tensor | None, present: tuple[int, ...]
    ) -> Tensor:
        """z: rows (B, L, D) or maps (B, D, h, w); missing: psi, and seen: bits of the sensors, laid out as z.

        Uniform, `missing` is one vector: (d,) beside rows, (1, d, 1, 1) beside maps.

        `seen` None: all of `present` are seen. `sensor`: whose tower it is; None: features of all sensors together.
        """
        dynamic, static, rank = self.config.dynamic, self.static, self.config.rank
        own = sensor is not None and self.config.variant == "B"
        special = (sensor,) if sensor is not None and own else present
        experts = [*range(static), *(static + j for j in special if self.config.special)]
        down, up = (torch.cat([w[i] for i in experts]) for w in (self.down, self.up))
        columns = torch.cat([self.spread[:, i * rank : (i + 1) * rank] for i in experts], dim=1)
        if own or not self.config.special:
            seen = None  # whoever is not dynamic answers everywhere
        if seen is None and self.at_once:
            scale = self._two(z, missing, len(down))
        else:
            scale = _times(self.gate(z, missing), columns[:dynamic]) if dynamic else columns.new_zeros(())
            if seen is None:
                scale = scale + _along(z, columns[dynamic:].sum(0))
            else:
                scale = scale + _along(z, columns[dynamic:static].sum(0)) + _times(seen, columns[static:])
        return apply(self.out, F.gelu(_times(_linear(z, down) * scale, up)))


def _axis(x: Tensor) -> int:
    """Where the features are: last in rows, second in maps."""
    return 1 if x.ndim == 4 else -1


def apply(layer: nn.Linear, x: Tensor) -> Tensor:
    """A linear layer on the features of rows or maps."""
    return _linear(x, layer.weight, layer.bias)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.conv2d(x, weight[..., None, None], bias) if x.ndim == 4 else F.linear(x, weight, bias)


def _times(x: Tensor, matrix: Tensor) -> Tensor:
    return F.conv2d(x, matrix.T[..., None, None]) if x.ndim == 4 else x @ matrix


def _along(x: Tensor, vector: Tensor) -> Tensor:
    """A vector that is broadcast over the features of `x`."""
    return vector.view(-1, 1, 1) if x.ndim == 4 else vector
