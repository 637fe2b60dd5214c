"""Galileo encoder: a transformer over patches of many remote-sensing sensors, pre-trained without labels.

G. Tseng et al., "Galileo: Learning Global & Local Features of Many Remote Sensing Modalities", arXiv:2502.09356.
Parameter names equal those of the published weights (MIT), so that their safetensors load as they are.

Arrays are batch first: space_time (B, H, W, T, 13), space (B, H, W, 16), time (B, T, 6), static (B, 18); masks have one
channel a band group, 1 = missing. Values are normalised: (x - shift) / div. Months count from 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, DEPTH, HEADS, KERNEL_PX = 128, 4, 8, 8
QUARTER = WIDTH // 4
MASKED = -1e4  # added to the scores of absent keys: exp() of it is exactly 0 in float32, and it fits float16

Groups = Mapping[str, tuple[int, ...]]
SPACE_TIME: Groups = {
    "S1": (0, 1),
    "S2_RGB": (2, 3, 4),
    "S2_Red_Edge": (5, 6, 7),
    "S2_NIR_10m": (8,),
    "S2_NIR_20m": (9,),
    "S2_SWIR": (10, 11),
    "NDVI": (12,),
}
SPACE: Groups = {"SRTM": (0, 1), "DW": tuple(range(2, 11)), "WC": tuple(range(11, 16))}
TIME: Groups = {"ERA5": (0, 1), "TC": (2, 3, 4), "VIIRS": (5,)}
STATIC: Groups = {
    "LS": (0,),
    "location": (1, 2, 3),
    "DW_static": tuple(range(4, 13)),
    "WC_static": tuple(range(13, 18)),
}


class Attention(nn.Module):
    """Multi-head self-attention; `bias` (B, 1, 1, L) is added to the scores of the keys."""

    def __init__(self, width: int = WIDTH, heads: int = HEADS) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            f(x).view(batch, length, self.heads, width // self.heads).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        scores = (q * (width // self.heads) ** -0.5) @ k.transpose(-2, -1)
        weights = torch.softmax(scores if bias is None else scores + bias, dim=-1)
        mixed: Tensor = self.proj((weights @ v).transpose(1, 2).reshape(batch, length, width))
        return mixed

    def near(self, x: Tensor, bias: Tensor | None, shape: tuple[int, int, int], reach: int) -> Tensor:
        """The same where each token sees those at most `reach` rows and columns away, in every group.

        x (B, groups * L, D) of `shape` (groups, rows, cols); `bias` as in `forward`, the same for all groups.
        """
        batch, length, width = x.shape
        (groups, rows, cols), tokens, heads = shape, shape[1] * shape[2], self.heads
        if groups == 1 and reach == 0:  # a token that sees itself alone
            alone: Tensor = self.proj(self.v(x))
            return alone
        q = self.q(x).view(batch, groups, tokens, heads, -1).permute(0, 2, 3, 1, 4) * (width // heads) ** -0.5
        k, v = (
            around(f(x).view(batch, groups, rows, cols, width).permute(0, 1, 4, 2, 3), reach)
            .view(batch, groups, heads, width // heads, -1, tokens)
            .permute(0, 5, 2, 3, 1, 4)
            .reshape(batch, tokens, heads, width // heads, -1)
            for f in (self.k, self.v)
        )
        scores = q @ k
        if reach:  # at reach 0 all keys are one place's: what is added to every key changes nothing
            every = torch.zeros(1, tokens) if bias is None else bias[:, 0, 0, :tokens]
            inside = (every - MASKED).view(-1, 1, rows, cols)
            keys = around(inside, reach).permute(0, 3, 1, 2).flatten(2).repeat(1, 1, groups)
            scores = scores + (keys + MASKED)[:, :, None, None]
        mixed = (torch.softmax(scores, dim=-1) @ v.transpose(-1, -2)).permute(0, 3, 1, 2, 4)
        y: Tensor = self.proj(mixed.reshape(batch, length, width))
        return y


def around(x: Tensor, reach: int) -> Tensor:
    """(..., rows, cols) -> (..., n, rows * cols): what lies at most `reach` away from each place; 0 outside."""
    rows, cols = x.shape[-2:]
    if reach:
        x = F.pad(x, (reach, reach, reach, reach))
    steps = range(2 * reach + 1)
    return torch.stack([x[..., i : i + rows, j : j + cols].flatten(-2) for i in steps for j in steps], dim=-2)


class FeedForward(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, width: int = WIDTH, ratio: int = 4) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, ratio * width), nn.Linear(ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


class Block(nn.Module):
    """Pre-norm transformer layer, in two steps: what is added to the feed-forward sits between them."""

    def __init__(self, width: int = WIDTH, heads: int = HEADS) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width), FeedForward(width)

    def attend(self, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """The residual stream after attention, and its norm: the feed-forward's input."""
        x = x + self.attn(self.norm1(x), bias)
        return x, self.norm2(x)

    def attend_near(
        self, x: Tensor, bias: Tensor | None, shape: tuple[int, int, int], reach: int
    ) -> tuple[Tensor, Tensor]:
        """The same with attention of limited reach (`Attention.near`)."""
        x = x + self.attn.near(self.norm1(x), bias, shape, reach)
        return x, self.norm2(x)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        x, z = self.attend(x, bias)
        y: Tensor = x + self.mlp(z)
        return y


class PatchEmbed(nn.Module):
    """Convolution with stride = patch size, its 8 x 8 kernel resized where the patch is smaller (FlexiViT)."""

    def __init__(self, channels: int, width: int = WIDTH) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, KERNEL_PX, KERNEL_PX)

    def forward(self, x: Tensor, patch_px: int = KERNEL_PX) -> Tensor:
        """(N, C, H, W) -> (N, H/p, W/p, width)."""
        kernel = self.proj.weight if patch_px == KERNEL_PX else resized_kernel(self.proj.weight, patch_px)
        return F.conv2d(x, kernel, self.proj.bias, stride=patch_px).permute(0, 2, 3, 1)


def resized_kernel(kernel: Tensor, patch_px: int) -> Tensor:
    """The kernel that answers to a shrunk patch as `kernel` does to the patch: pinv of bicubic resizing."""
    n = kernel.shape[-1]
    unit = torch.eye(n * n, dtype=kernel.dtype).view(n * n, 1, n, n)
    small = F.interpolate(unit, (patch_px, patch_px), mode="bicubic", antialias=True, align_corners=False)
    resize = small.view(n * n, -1).T
    flat: Tensor = kernel.flatten(2) @ torch.linalg.pinv(resize)
    return flat.view(*kernel.shape[:2], patch_px, patch_px)


def sincos(width: int, position: Tensor) -> Tensor:
    """Sine and cosine features (N, width) of positions (N,). The exponent is i / (2 width), as published."""
    omega = 10000.0 ** -(torch.arange(width // 2, dtype=torch.float64) / (2 * width))
    angle = position.double()[:, None] * omega
    return torch.cat([angle.sin(), angle.cos()], dim=1).float()


def space_positions(rows: int, cols: int, step: float) -> Tensor:
    """(rows, cols, QUARTER): where a patch lies, column first; `step` = patch size in units of 10 m."""
    row = sincos(QUARTER // 2, torch.arange(rows) * step)[:, None].expand(-1, cols, -1)
    col = sincos(QUARTER // 2, torch.arange(cols) * step)[None].expand(rows, -1, -1)
    return torch.cat([col, row], dim=-1)


class Inputs(NamedTuple):
    """One value a kind of band: where and when, where only, when only, neither."""

    space_time: Tensor
    space: Tensor
    time: Tensor
    static: Tensor


class Galileo(nn.Module):
    """The encoder with every band group, as published."""

    pos_embed: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.space_time_embed = _patch_embeds(SPACE_TIME)
        self.space_embed = _patch_embeds(SPACE)
        self.time_embed = _linears(TIME)
        self.static_embed = _linears(STATIC)
        self.pos_embed = nn.Parameter(sincos(QUARTER, torch.arange(24)))
        self.month_embed = nn.Embedding(12, QUARTER, _weight=_month_table())
        self.s_t_channel_embed, self.sp_channel_embed, self.t_channel_embed, self.st_channel_embed = (
            nn.Parameter(torch.zeros(len(groups), QUARTER)) for groups in (SPACE_TIME, SPACE, TIME, STATIC)
        )
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH)

    def patch_embed(self, group: str) -> PatchEmbed:
        return cast(PatchEmbed, (self.space_embed if group in SPACE else self.space_time_embed)[group])

    def forward(
        self, x: Inputs, missing: Inputs, months: Tensor, *, patch_px: int, resolution_m: float
    ) -> tuple[Inputs, Tensor]:
        """Encoded tokens per kind, group axis before the feature axis, and their mean over present tokens (B, width).

        Missing tokens equal the bias of the last norm.
        """
        tokens = self._embed(x, patch_px)
        places = self._positions(tokens, months, patch_px, resolution_m)
        tokens = Inputs(*(t + p for t, p in zip(tokens, places, strict=True)))
        gone = Inputs(
            missing.space_time[:, ::patch_px, ::patch_px],
            missing.space[:, ::patch_px, ::patch_px],
            missing.time,
            missing.static,
        )
        flat = torch.cat([t.flatten(1, -2) for t in tokens], dim=1)
        present = torch.cat([m.flatten(1) for m in gone], dim=1) == 0
        bias = torch.where(present, 0.0, MASKED)[:, None, None]
        for block in self.blocks:
            flat = block(flat, bias)
        flat = self.norm(torch.where(present[..., None], flat, 0.0))
        mean = (flat * present[..., None]).sum(1) / present.sum(1, keepdim=True)
        parts = flat.split([math.prod(t.shape[1:-1]) for t in tokens], dim=1)
        return Inputs(*(p.view(t.shape) for p, t in zip(parts, tokens, strict=True))), mean

    def _embed(self, x: Inputs, patch_px: int) -> Inputs:
        batch, _, _, steps, _ = x.space_time.shape
        movie = x.space_time.permute(0, 3, 4, 1, 2).flatten(0, 1)
        still = x.space.permute(0, 3, 1, 2)
        space_time = torch.stack(
            [self.space_time_embed[g](movie[:, list(c)], patch_px) for g, c in SPACE_TIME.items()], dim=-2
        )
        return Inputs(
            space_time.view(batch, steps, *space_time.shape[1:]).permute(0, 2, 3, 1, 4, 5),
            torch.stack([self.space_embed[g](still[:, list(c)], patch_px) for g, c in SPACE.items()], dim=-2),
            torch.stack([self.time_embed[g](x.time[..., list(c)]) for g, c in TIME.items()], dim=-2),
            torch.stack([self.static_embed[g](x.static[..., list(c)]) for g, c in STATIC.items()], dim=-2),
        )

    def _positions(self, tokens: Inputs, months: Tensor, patch_px: int, resolution_m: float) -> Inputs:
        batch, rows, cols, steps, groups, _ = tokens.space_time.shape
        space = space_positions(rows, cols, resolution_m * patch_px / 10)
        month = self.month_embed(months)
        space_time = torch.cat(
            [
                self.s_t_channel_embed.expand(batch, rows, cols, steps, -1, -1),
                self.pos_embed[:steps, None].expand(batch, rows, cols, -1, groups, -1),
                month[:, None, None, :, None].expand(-1, rows, cols, -1, groups, -1),
                space[None, :, :, None, None].expand(batch, -1, -1, steps, groups, -1),
            ],
            dim=-1,
        )
        kinds = len(SPACE)
        still = torch.cat(
            [
                self.sp_channel_embed.expand(rows, cols, -1, -1),
                torch.zeros(rows, cols, kinds, 2 * QUARTER),
                space[:, :, None].expand(-1, -1, kinds, -1),
            ],
            dim=-1,
        )
        kinds = len(TIME)
        time = torch.cat(
            [
                self.t_channel_embed.expand(batch, steps, -1, -1),
                self.pos_embed[:steps, None].expand(batch, -1, kinds, -1),
                month[:, :, None].expand(-1, -1, kinds, -1),
                torch.zeros(batch, steps, kinds, QUARTER),
            ],
            dim=-1,
        )
        return Inputs(space_time, still, time, F.pad(self.st_channel_embed, (0, 3 * QUARTER)))


def _patch_embeds(groups: Groups) -> nn.ModuleDict:
    return nn.ModuleDict({name: PatchEmbed(len(bands)) for name, bands in groups.items()})


def _linears(groups: Groups) -> nn.ModuleDict:
    return nn.ModuleDict({name: nn.Linear(len(bands), WIDTH) for name, bands in groups.items()})


def _month_table() -> Tensor:
    angle = 2 * np.pi * np.arange(12) / 12
    half = QUARTER // 2
    return torch.from_numpy(np.repeat(np.stack([np.sin(angle), np.cos(angle)], 1), half, axis=1)).float()


def group_position(galileo: Galileo, group: str, rows: int, cols: int, *, step: float, month: int) -> Tensor:
    """What Galileo adds to the patches of one band group at the first time step: (rows, cols, WIDTH)."""
    space = space_positions(rows, cols, step)
    if group in SPACE:
        channel, when = galileo.sp_channel_embed[list(SPACE).index(group)], torch.zeros(2 * QUARTER)
    else:
        channel = galileo.s_t_channel_embed[list(SPACE_TIME).index(group)]
        when = torch.cat([galileo.pos_embed[0], galileo.month_embed.weight[month]])
    parts: Sequence[Tensor] = (channel, when)
    return torch.cat([*(p.detach().expand(rows, cols, -1) for p in parts), space], dim=-1)
