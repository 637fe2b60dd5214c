"""DyMo: missing sensors are recovered as features, and each place decides which of them to believe.

Du et al., "Inference-Time Dynamic Modality Selection for Incomplete Multimodal Classification", arXiv:2601.22853.
Differences from the paper: a place is a square of the encoder's coarsest stride (or the window, where windows are
classified), so the choice is made all over a map at once; recovery is a regressor from the observed tokens, learned
beside the network and without a gradient into it; one of a step's subsets is the sampler's.

All sets of sensors that a graph may need are fused at once: 2^m passes of a small transformer for m candidates, where
the paper's loop with a cache needs 1 + m (m + 1) / 2. The selection is then a few look-ups, and one graph holds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmedge.edge.models.dynamic_transformer import DynamicTransformer, Recovery
from mmedge.edge.models.encoders import Encoder, Features
from mmedge.edge.models.network import Maps, withheld
from mmedge.edge.models.plain import EncoderNetwork, Task
from mmedge.edge.models.prototypes import Prototypes
from mmedge.edge.models.selection import Distance, Sets, choose

MOST_SENSORS = 5  # 2^M sets are kept and, in a mixed graph, fused


@dataclass(frozen=True, slots=True, kw_only=True)
class DyMoConfig:
    """Sizes and training as in the paper's runs with one token a modality; `accept` all: impute-all, none: discard.

    `subsets` a step; the prototype loss begins after `warm_epochs`; weights of the recovery's and the tokens' losses.
    """

    width: int = 32
    heads: int = 2
    layers: int = 2
    projection: int = 16
    recovery_hidden: int = 64
    distance: Distance = "cosine"
    temperature: float = 0.1
    subsets: int = 2
    warm_epochs: int = 3
    prototype: float = 1.0
    recovery: float = 1.0
    accept: Literal["reward", "all", "none"] = "reward"
    iterative: bool = True
    similar: bool = True


@dataclass(frozen=True, slots=True)
class Places:
    """Tokens (R, M, D) of R places, seen (R, M) bool, and the places' shape (B, rows, cols)."""

    tokens: Tensor
    seen: Tensor
    shape: tuple[int, int, int]


class DyMo(EncoderNetwork):
    """The network. `finish` takes the statistics of every subset; before, no recovered sensor is believed."""

    outputs = ("logits", "recovered")

    def __init__(self, encoder: Encoder, classes: int, task: Task = "map", config: DyMoConfig | None = None) -> None:
        super().__init__(encoder, classes, task)
        self.config = config = config or DyMoConfig()
        sensors, width = len(self.sensors), config.width
        if sensors > MOST_SENSORS:
            raise ValueError(f"DyMo takes at most {MOST_SENSORS} sensors, got {sensors}")
        self.narrow = nn.Linear(encoder.widths[-1], width)
        self.norm = nn.ModuleDict({m: nn.LayerNorm(width) for m in self.sensors})
        self.transformer = DynamicTransformer(sensors, width, heads=config.heads, layers=config.layers)
        self.recover = Recovery(sensors, width, config.recovery_hidden)
        self.classify = nn.Linear(width, classes)
        self.project = nn.Linear(width, config.projection)
        self.prototypes = Prototypes(sensors, classes, config.projection, config.distance, config.temperature)
        if task == "map":
            self.widen = nn.Linear(width, encoder.widths[-1])
            self.head = nn.Conv2d(encoder.width, classes, 1)

    def forward(self, data: Maps, valid: Maps, *, uniform: bool = False) -> Tensor:
        return self.answers(data, valid, uniform=uniform)[0]

    def answers(self, data: Maps, valid: Maps, *, uniform: bool = False) -> tuple[Tensor, ...]:
        """Logits, and which sensors were recovered and believed: uint8 (B, sensors, H, W), or (B, sensors)."""
        features = self.encoder.encode(data, valid, uniform=uniform)
        places = self._places(features)
        present = tuple(m in data for m in self.sensors)
        cls, believed = self._select(places, present, uniform=uniform)
        return self._classes(cls, places, features), self._spread_out(believed, places)

    def losses(self, data: Maps, valid: Maps, labels: Tensor, kept: Tensor) -> dict[str, Tensor]:
        """Means over the step's subsets: cross-entropy of the map and of the tokens, prototypes, recovery."""
        features = self.encoder.encode(data, valid)
        places = self._places(features)
        truth = self._token_labels(labels, places)
        draws = [kept, *(self._draw().expand_as(kept) for _ in range(self.config.subsets - 1))]
        terms = [self._terms(places, features, labels, truth, keep) for keep in draws]
        return {name: torch.stack([t[name] for t in terms]).mean() for name in terms[0]}

    def end_epoch(self) -> None:
        self.prototypes.end_epoch()

    @torch.no_grad()
    def finish(self, batches: Iterable[tuple[Maps, Maps, Tensor]]) -> None:
        """Mean and spread of every class's projections for every subset, from examples that did not train."""
        training = self.training
        self.eval()
        with self.prototypes.collecting() as collect:
            for data, valid, labels in batches:
                places = self._places(self.encoder.encode(data, valid))
                truth = self._token_labels(labels, places)
                for code in range(1, 2 ** len(self.sensors)):
                    wanted = self._members(code)
                    rows = (places.seen | ~wanted).all(1) & (truth >= 0)
                    cls = self.transformer(places.tokens[rows], wanted.expand(int(rows.sum()), -1))
                    collect(code, self.project(cls), truth[rows])
        self.train(training)

    @torch.no_grad()
    def oracle(self, data: Maps, valid: Maps, labels: Tensor, kept: Tensor) -> Tensor | None:
        """The set of recovered sensors that gives each place's true class the highest probability."""
        features = self.encoder.encode(data, withheld(valid, kept, self.sensors))
        places = self._places(features)
        truth = self._token_labels(labels, places)
        every, _ = self._every_set(places, (False,) * len(self.sensors))
        score = (
            self.classify(every).softmax(-1).gather(2, truth.clamp(min=0).view(-1, 1, 1).expand(-1, every.shape[1], 1))
        )
        codes = torch.arange(every.shape[1], device=every.device)
        observed = self._code(places.seen)
        reachable = (codes & observed[:, None]) == observed[:, None]
        best = torch.where(reachable, score[..., 0], -1.0).argmax(1)
        best = torch.where((truth >= 0) & (observed > 0), best, observed)
        return self._classes(_pick(every, best), places, features)

    def _places(self, features: Mapping[str, Features]) -> Places:
        """Tokens of every sensor; zeros and not seen where it is absent."""
        first = next(iter(features.values())).maps[-1]
        batch, _, rows, cols = first.shape
        if self.task == "window":
            rows = cols = 1
        tokens, seen = [], []
        for m in self.sensors:
            if m not in features:
                tokens.append(first.new_zeros(batch * rows * cols, self.config.width))
                seen.append(torch.zeros(batch * rows * cols, dtype=torch.bool, device=first.device))
                continue
            x, here = self._sensor(m, features[m])
            tokens.append(self.norm[m](self.narrow(x.permute(0, 2, 3, 1))).flatten(0, 2))
            seen.append(here.flatten())
        return Places(torch.stack(tokens, 1), torch.stack(seen, 1), (batch, rows, cols))

    def _sensor(self, sensor: str, f: Features) -> tuple[Tensor, Tensor]:
        """The coarsest map of a sensor and where it counts; its mean where windows are classified."""
        x = cast(nn.ModuleDict, self.encoder.join[-1])[sensor](f.maps[-1])
        seen = f.seen[-1]
        seen = torch.ones_like(x[:, :1], dtype=torch.bool) if seen is None else seen
        if self.task == "map":
            return x, seen
        weight = seen.to(x.dtype)
        mean = (x * weight).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp(min=1)
        return mean, weight.amax((2, 3), keepdim=True) > 0

    def _select(self, places: Places, present: tuple[bool, ...], *, uniform: bool) -> tuple[Tensor, Tensor]:
        """CLS (R, D) of the chosen sets, and which sensors in them are recovered (R, M)."""
        config, observed = self.config, places.seen
        none = torch.zeros_like(observed)
        if config.accept == "none" or (uniform and all(present)):
            return self.transformer(places.tokens, observed), none
        if config.accept == "all":
            some = observed.any(1, keepdim=True)
            return self.transformer(self._completed(places), observed | some), ~observed & some
        always = present if uniform else (False,) * len(present)
        every, listed = self._every_set(places, always)
        candidates = [i for i, there in enumerate(always) if not there]
        chosen = choose(
            self._sets(every, listed, observed[:, candidates], uniform=uniform),
            config.distance,
            rounds=len(candidates) if uniform else len(candidates) - 1,
            iterative=config.iterative,
            similar=config.similar,
        )
        return _pick(every, chosen), self._table(listed)[chosen] & ~observed

    def _every_set(self, places: Places, always: tuple[bool, ...]) -> tuple[Tensor, list[int]]:
        """CLS (R, 2^c, D) of the sensors that are always there with each set of candidates, and the sets' codes."""
        candidates = [i for i, there in enumerate(always) if not there]
        base = sum(1 << i for i, there in enumerate(always) if there)
        listed = [
            base + sum(1 << i for j, i in enumerate(candidates) if k >> j & 1) for k in range(1 << len(candidates))
        ]
        tokens = self._completed(places)
        rows, _, width = tokens.shape
        mask = self._table(listed)
        cls = self.transformer(
            tokens[:, None].expand(-1, len(listed), -1, -1).reshape(-1, len(always), width),
            mask[None].expand(rows, -1, -1).reshape(-1, len(always)),
        )
        return cls.view(rows, len(listed), width), listed

    def _sets(self, every: Tensor, listed: list[int], observed: Tensor, *, uniform: bool) -> Sets:
        codes = torch.tensor(listed, device=every.device)
        confidence, similar = self.prototypes.judge(self.project(every), self.classify(every).argmax(-1), codes)
        start = self._code(observed)
        may = ~observed if uniform else ~observed & observed.any(1, keepdim=True)
        return Sets(confidence, similar, torch.zeros_like(start) if uniform else start, may)

    def _completed(self, places: Places) -> Tensor:
        """Tokens (R, M, D), recovered where they were not observed."""
        return torch.where(places.seen[..., None], places.tokens, self.recover(places.tokens, places.seen))

    def _terms(
        self, places: Places, features: Mapping[str, Features], labels: Tensor, truth: Tensor, keep: Tensor
    ) -> dict[str, Tensor]:
        per_window = len(places.seen) // len(keep)
        mask = places.seen & keep.repeat_interleave(per_window, 0)
        truth = torch.where(mask.any(1), truth, -1)
        cls = self.transformer(places.tokens, mask)
        terms = {"token" if self.task == "map" else "task": _mean_loss(self.classify(cls), truth)}
        if self.task == "map":
            some = {m: f.kept(keep[:, self.sensors.index(m)]) for m, f in features.items()}
            answered = self._spread_out(mask.any(1, keepdim=True), places)[:, 0] > 0
            terms["task"] = _mean_loss(self._classes(cls, places, some), torch.where(answered, labels, -1))
        projected = self.project(cls)
        self.prototypes.add(projected.detach(), truth)
        if self.prototypes.epochs >= self.config.warm_epochs:
            terms["prototype"] = self.config.prototype * _mean_loss(self.prototypes.scores(projected), truth)
        tokens = places.tokens.detach()
        wanted = (places.seen & ~mask & mask.any(1, keepdim=True))[..., None]
        error = (self.recover(tokens, mask) - tokens).square() * wanted
        terms["recovery"] = self.config.recovery * error.sum() / (wanted.sum() * tokens.shape[-1]).clamp(min=1)
        return terms

    def _classes(self, cls: Tensor, places: Places, features: Mapping[str, Features]) -> Tensor:
        if self.task == "window":
            return cast(Tensor, self.classify(cls))
        coarse = self.widen(cls).view(*places.shape, -1).permute(0, 3, 1, 2)
        logits: Tensor = self.head(self.encoder.spread(coarse, features))
        return logits

    def _spread_out(self, believed: Tensor, places: Places) -> Tensor:
        if self.task == "window":
            return believed.to(torch.uint8)
        grid = believed.to(torch.float32).view(*places.shape, -1).permute(0, 3, 1, 2)
        return F.interpolate(grid, scale_factor=float(self.token_px), mode="nearest").to(torch.uint8)

    def _token_labels(self, labels: Tensor, places: Places) -> Tensor:
        """The most frequent class (R,) of each place, -1 where nothing is labelled."""
        if self.task == "window":
            return labels
        each = F.one_hot(labels.clamp(min=0), self.classes).permute(0, 3, 1, 2) * (labels >= 0)[:, None]
        share, most = F.avg_pool2d(each.to(torch.float32), self.token_px).max(1)
        return torch.where(share > 0, most, -1).flatten()

    def _draw(self) -> Tensor:
        """A random non-empty set of sensors (M,) bool, on torch's global generator."""
        return self._members(int(torch.randint(1, 2 ** len(self.sensors), ())))

    def _members(self, code: int) -> Tensor:
        return torch.tensor([bool(code >> i & 1) for i in range(len(self.sensors))], device=self.transformer.cls.device)

    def _table(self, codes: list[int]) -> Tensor:
        """Which sensors each code stands for: (K, M) bool. TensorRT looks things up, but knows no bits of integers."""
        return torch.stack([self._members(code) for code in codes])

    def _code(self, bits: Tensor) -> Tensor:
        return (bits * 2 ** torch.arange(bits.shape[1], device=bits.device)).sum(1)


def _pick(every: Tensor, which: Tensor) -> Tensor:
    """(R, K, D), (R,) -> (R, D)."""
    return every.gather(1, which.view(-1, 1, 1).expand(-1, 1, every.shape[-1]))[:, 0]


def _mean_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy over the rows that have a class; 0 where none has."""
    total = F.cross_entropy(logits, truth, ignore_index=-1, reduction="sum")
    return total / (truth >= 0).sum().clamp(min=1)
