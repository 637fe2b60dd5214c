"""DyMo's choice of recovered modalities, on tables: one row a place, one column a set of sensors.

Du et al., "Inference-Time Dynamic Modality Selection for Incomplete Multimodal Classification", arXiv:2601.22853,
Eq. 8 and Algorithm 1. Column k stands for the sensors that are always there and the candidates whose bit of k is set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Distance = Literal["cosine", "euclid"]
SMALLEST = 1e-4  # similarities below it are equal: their logarithms would be noise
CLOSED = -1e4


@dataclass(frozen=True, slots=True)
class Sets:
    """confidence and similarity (R, 2^c) of each set; start (R,): the observed one; open (R, c): what may be added."""

    confidence: Tensor
    similarity: Tensor
    start: Tensor
    open: Tensor


def similarity(delta: Tensor, deviation: Tensor) -> Tensor:
    """2 (1 - Phi(delta / deviation)): how usual the distance from its class's mean is, 0..1."""
    return 1 - torch.erf(delta / (deviation.clamp(min=1e-6) * math.sqrt(2)))


def penalty(before: Tensor, after: Tensor, distance: Distance) -> Tensor:
    """alpha <= 1: below 1 where adding a candidate takes the features away from what is usual for their class."""
    p, q = (x.clamp(min=SMALLEST, max=1.0) for x in (before, after))
    ratio = q / p
    if distance == "cosine":
        ratio = torch.where(p < 1, p.log() / q.log().clamp(max=-1e-6), ratio)
    return torch.where(q >= p, torch.ones_like(p), ratio)


def reward(confidence: tuple[Tensor, Tensor], similar: tuple[Tensor, Tensor], distance: Distance) -> Tensor:
    """What adding a candidate gains; each pair is (before, after)."""
    return penalty(*similar, distance) * confidence[1] - confidence[0]


def choose(sets: Sets, distance: Distance, *, rounds: int, iterative: bool = True, similar: bool = True) -> Tensor:
    """The chosen set (R,) of each row: the best candidate is added until none has a positive reward.

    A candidate whose reward is not positive never comes back. `iterative` False: all positive ones at once;
    `similar` False: confidence alone counts (both ablations of the paper).
    """
    bits = 2 ** torch.arange(sets.open.shape[1], device=sets.start.device)
    current, left = sets.start, sets.open
    for _ in range(rounds if iterative else 1):
        following = torch.where(left, current[:, None] + bits, current[:, None])
        pairs = [
            (table.gather(1, current[:, None]), table.gather(1, following))
            for table in (sets.confidence, sets.similarity)
        ]
        gain = reward(pairs[0], pairs[1], distance) if similar else pairs[0][1] - pairs[0][0]
        left = left & (gain > 0)
        best = torch.where(left, gain, CLOSED).argmax(1, keepdim=True)
        taken = left & (torch.arange(len(bits), device=best.device) == best) if iterative else left
        current = current + (taken * bits).sum(1)
        left = left & ~taken
    return current
