"""MARS's routers and their losses, on rows: logits (R, N) of N experts. Equations of arXiv:2606.30355, section 3."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIGMA_FLOOR = 1e-2


class ResidualRouter(nn.Module):
    """Reads what the incomplete input lacks. Linear without bias: nothing lacks, nothing is said."""

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, experts, bias=False)
        self.spread = nn.Linear(width, experts, bias=False)

    def forward(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Residual (R, D) -> clean logits and the deviation of their noise, (R, N) each."""
        return self.gate(residual), F.softplus(self.spread(residual)) + SIGMA_FLOOR


def sparse_softmax(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Softmax over the k largest of each row: weights (R, k) and which they are (R, k)."""
    top = logits.topk(k, dim=-1)
    return top.values.softmax(-1), top.indices


def imitation(teacher: Tensor, guess: Tensor) -> Tensor:
    """KL(softmax(teacher) || softmax(guess)); no gradient reaches the teacher."""
    return F.kl_div(guess.log_softmax(-1), teacher.detach().softmax(-1), reduction="batchmean")


def noise_ranking(clean: Tensor, guess: Tensor, sigma: Tensor, k: int) -> Tensor:
    """The more the routers differ on an expert that either chooses, the more noise it shall get. Mean over rows.

    Softplus of the step of log sigma^2 from each expert to the next in order of falling difference.
    """
    chosen = torch.zeros_like(clean)
    for logits in (clean, guess):
        chosen.scatter_(1, logits.topk(k, dim=-1).indices, 1.0)
    differ = (clean.softmax(-1) - guess.softmax(-1)).abs().detach()
    order = differ.masked_fill(chosen == 0, -1.0).argsort(dim=-1, descending=True)
    log_variance = 2 * sigma.log().gather(1, order)
    steps = F.softplus(log_variance[:, 1:] - log_variance[:, :-1])
    count = chosen.sum(1, keepdim=True)
    pairs = torch.arange(1, clean.shape[1], device=clean.device) < count
    return ((steps * pairs).sum(1) / (count[:, 0] - 1).clamp(min=1)).mean()


def load_balance(clean: Tensor, noisy: Tensor, sigma: Tensor, k: int) -> Tensor:
    """Squared coefficients of variation over the experts of importance and of smooth load (arXiv:1701.06538)."""
    weight, which = sparse_softmax(noisy, k)
    importance = torch.zeros_like(noisy).scatter(1, which, weight).sum(0)
    return _variation(importance) + _variation(load(clean, noisy, sigma, k).sum(0))


def load(clean: Tensor, noisy: Tensor, sigma: Tensor, k: int) -> Tensor:
    """Probability (R, N) that each expert would be chosen if its own noise were drawn anew."""
    if k == clean.shape[1]:
        return torch.ones_like(clean)
    top = noisy.topk(k + 1, dim=-1).values
    in_top = noisy >= top[:, k - 1 : k]
    threshold = torch.where(in_top, top[:, k:], top[:, k - 1 : k])
    return 0.5 * (1 + torch.erf((clean - threshold) / (sigma * math.sqrt(2))))


def _variation(x: Tensor) -> Tensor:
    return x.var(unbiased=False) / (x.mean() ** 2 + 1e-10)
