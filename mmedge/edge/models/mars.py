"""MARS: experts chosen by what an incomplete input lacks, and a router that learns to guess the choice.

Baek et al., "Residual-Guided Expert Specialization for Incomplete Multimodal Learning", arXiv:2606.30355. Differences
from the paper: the anchor is what a sample has, complete or not; layer norm for batch norm in the feature router;
experts are small perceptrons on each place; routing per pixel is an extension, and there every expert is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmedge.edge.models.encoders import Encoder, Features, pooled
from mmedge.edge.models.network import Maps
from mmedge.edge.models.plain import EncoderNetwork, Task
from mmedge.edge.models.routing import ResidualRouter, imitation, load_balance, noise_ranking, sparse_softmax


@dataclass(frozen=True, slots=True, kw_only=True)
class MarsConfig:
    """`experts` of which `top_k` answer; weights of the losses; `temperature` and `floor` of the pattern sampler.

    `guided_from`: the epoch from which patterns are drawn by discrepancy. `deployed`: weight of an extension, the loss
    of incomplete inputs on the route that maps take. `residual` False is an ablation, a mixture of experts with one
    router, which reads what is left.
    """

    experts: int = 8
    top_k: int = 3
    hidden: int = 48
    routing: Literal["image", "pixel"] = "image"
    balance: float = 0.05
    imitation: float = 1.0
    noise: float = 0.01
    deployed: float = 0.0
    temperature: float = 0.06
    floor: float = 0.03
    guided_from: int = 3
    residual: bool = True


class Experts(nn.Module):
    """N perceptrons on maps z (B, D, h, w)."""

    def __init__(self, config: MarsConfig, width: int) -> None:
        super().__init__()
        n, hidden = config.experts, config.hidden
        self.first = nn.Parameter(torch.randn(n, hidden, width) * (2 / width) ** 0.5)
        self.first_bias = nn.Parameter(torch.zeros(n, hidden))
        self.second = nn.Parameter(torch.randn(n, width, hidden) * hidden**-0.5)
        self.second_bias = nn.Parameter(torch.zeros(n, width))

    def chosen(self, z: Tensor, which: Tensor, weight: Tensor) -> Tensor:
        """Weighted sum of K experts an example, which (B, K) and weight (B, K). No other is computed."""
        batch, width, rows, cols = z.shape
        one, one_bias, two, two_bias = (
            w.index_select(0, which.flatten()).view(*which.shape, *w.shape[1:])
            for w in (self.first, self.first_bias, self.second, self.second_bias)
        )
        first = one.flatten(1, 2)  # (B, K * hidden, D): the chosen experts side by side
        hidden = F.relu(first @ z.flatten(2) + one_bias.flatten(1)[..., None])
        second = (two * weight[..., None, None]).transpose(1, 2).flatten(2)
        bias = (two_bias * weight[..., None]).sum(1)
        return (second @ hidden + bias[..., None]).view(batch, width, rows, cols)

    def weighted(self, z: Tensor, weight: Tensor) -> Tensor:
        """Every expert, weighted at each place by weight (B, N, h, w)."""
        hidden = self.first.shape[1]
        h = F.relu(F.conv2d(z, self.first.flatten(0, 1)[..., None, None], self.first_bias.flatten()))
        h = h * weight.repeat_interleave(hidden, dim=1)
        second = self.second.transpose(0, 1).flatten(1)
        return F.conv2d(h, second[..., None, None]) + torch.einsum("bnhw,nd->bdhw", weight, self.second_bias)


class Mars(EncoderNetwork):
    """The network. `agreement` and `drawn` count, for each incomplete pattern, how the two routers agree."""

    agreement: Tensor
    drawn: Tensor
    wish: Tensor
    epochs: Tensor

    def __init__(self, encoder: Encoder, classes: int, task: Task = "map", config: MarsConfig | None = None) -> None:
        super().__init__(encoder, classes, task)
        self.config = config = config or MarsConfig()
        if task == "window" and config.routing == "pixel":
            raise ValueError("a window has no pixels to route: routing 'image'")
        self.sees_whole_window |= config.routing == "image"
        width, patterns = encoder.width, 2 ** len(self.sensors)
        self.residual_router = ResidualRouter(width, config.experts)
        self.residual_router.gate.requires_grad_(config.residual)
        self.feature_router = nn.Sequential(
            nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, config.experts)
        )
        self.experts = Experts(config, width)
        self.head = nn.Conv2d(width, classes, 1)
        for name in ("agreement", "drawn", "wish"):
            self.register_buffer(name, torch.zeros(patterns))
        self.register_buffer("epochs", torch.zeros(()))

    def forward(self, data: Maps, valid: Maps, *, uniform: bool = False) -> Tensor:
        features = self.encoder.encode(data, valid, uniform=uniform)
        z, summary = self._fused(features)
        return self._classes(z, self.feature_router(summary))

    def losses(self, data: Maps, valid: Maps, labels: Tensor, kept: Tensor) -> dict[str, Tensor]:
        """The terms of the paper. Examples that lose nothing train the full path alone."""
        features = self.encoder.encode(data, valid)
        z_full, summary_full = self._fused(features)
        z_part, summary = self._fused(self._kept(features, kept))
        guess = self.feature_router(summary)
        logits, sigma = self.residual_router(summary_full - summary if self.config.residual else summary)
        logits = logits if self.config.residual else guess
        noisy = logits + torch.randn_like(sigma) * sigma
        whole = self._classes(z_full, self.feature_router(summary_full))
        part = self._classes(z_part, noisy)
        lost = self._lost(valid, kept)
        rows = lost if self.config.routing == "image" else lost.repeat_interleave(len(guess) // len(lost))
        self._count(logits, guess, valid, kept, lost)
        k = self.config.top_k
        terms = {
            "task": F.cross_entropy(whole, labels, ignore_index=-1),
            "task_incomplete": _cross_entropy(part[lost], labels[lost]),
            "balance": self.config.balance * load_balance(logits[rows], noisy[rows], sigma[rows], k),
        }
        if self.config.residual:
            terms["imitation"] = self.config.imitation * imitation(logits[rows], guess[rows])
            terms["noise"] = self.config.noise * noise_ranking(logits[rows], guess[rows], sigma[rows], k)
        if self.config.deployed:
            own = self._classes(z_part, guess)
            terms["task_deployed"] = self.config.deployed * _cross_entropy(own[lost], labels[lost])
        return terms if lost.any() else {"task": terms["task"]}

    def oracle(self, data: Maps, valid: Maps, labels: Tensor, kept: Tensor) -> Tensor | None:
        """Routed by the true residual, without noise: what a perfect imitation would reach."""
        if not self.config.residual:
            return None
        features = self.encoder.encode(data, valid)
        (_, full), (z, summary) = self._fused(features), self._fused(self._kept(features, kept))
        by_residual = self._classes(z, self.residual_router(full - summary)[0])
        by_feature = self._classes(z, self.feature_router(summary))
        lost = self._lost(valid, kept).view(-1, *[1] * (z.ndim - 1 if self.task == "map" else 1))
        return torch.where(lost, by_residual, by_feature)

    def pattern_weights(self) -> Mapping[tuple[str, ...], float] | None:
        """Incomplete patterns by the discrepancy of the last epoch. None before `guided_from`."""
        if self.epochs < self.config.guided_from or not self.wish.any():
            return None
        weights = self.wish.tolist()
        return {
            tuple(m for i, m in enumerate(self.sensors) if code >> i & 1): weights[code]
            for code in range(1, len(weights) - 1)
        }

    def end_epoch(self) -> None:
        self.epochs += 1
        seen = self.drawn > 0
        if seen.any():
            apart = 1 - self.agreement / self.drawn.clamp(min=1)
            apart[~seen] = apart[seen].mean()
            incomplete = slice(1, len(apart) - 1)
            q = torch.softmax(apart[incomplete] / self.config.temperature, dim=0).clamp(min=self.config.floor)
            self.wish.zero_()
            self.wish[incomplete] = q / q.sum()
        self.agreement.zero_()
        self.drawn.zero_()

    def _fused(self, features: Mapping[str, Features]) -> tuple[Tensor, Tensor]:
        """z (B, D, h, w) and what the routers read of it: (B, D), or (B * h * w, D) where each pixel is routed."""
        z = self.encoder.fuse(features)
        mean = z if self.config.routing == "pixel" else pooled(z, features)
        return (mean if self.task == "window" else z), mean.permute(0, 2, 3, 1).flatten(0, 2)

    def _kept(self, features: Mapping[str, Features], kept: Tensor) -> dict[str, Features]:
        return {m: f.kept(kept[:, self.sensors.index(m)]) for m, f in features.items()}

    def _classes(self, z: Tensor, routing: Tensor) -> Tensor:
        weight, which = sparse_softmax(routing, self.config.top_k)
        if self.config.routing == "image":
            mixed = self.experts.chosen(z, which, weight)
        else:
            dense = torch.zeros_like(routing).scatter(1, which, weight)
            mixed = self.experts.weighted(z, dense.view(z.shape[0], *z.shape[2:], -1).permute(0, 3, 1, 2))
        logits: Tensor = self.head(mixed)
        return logits.flatten(1) if self.task == "window" else logits

    def _lost(self, valid: Maps, kept: Tensor) -> Tensor:
        """(B,) bool: `kept` denies the example a sensor that it has, and leaves it another."""
        has = torch.stack([_has(valid, m, kept) for m in self.sensors], dim=1)
        return (has & ~kept).any(1) & (has & kept).any(1)

    @torch.no_grad()
    def _count(self, logits: Tensor, guess: Tensor, valid: Maps, kept: Tensor, lost: Tensor) -> None:
        k, batch = self.config.top_k, len(kept)
        chosen = [torch.zeros_like(x, dtype=torch.float32).scatter(1, x.topk(k).indices, 1.0) for x in (logits, guess)]
        common = ((chosen[0] * chosen[1]).sum(1) / k).view(batch, -1).mean(1)
        left = torch.stack([_has(valid, m, kept) for m in self.sensors], dim=1) & kept
        code = (left * 2 ** torch.arange(len(self.sensors), device=kept.device)).sum(1)
        self.agreement.index_add_(0, code[lost], common[lost])
        self.drawn.index_add_(0, code[lost], torch.ones_like(common[lost]))


def _has(valid: Maps, sensor: str, kept: Tensor) -> Tensor:
    return valid[sensor].flatten(1).any(1) if sensor in valid else torch.zeros_like(kept[:, 0])


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the labelled places; 0 where there are none."""
    total = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")
    return total / (labels >= 0).sum().clamp(min=1)
