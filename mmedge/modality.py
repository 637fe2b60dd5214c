"""Modalities of a model, and which of them are there: `Modality`, `Availability`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from math import inf
from typing import Literal, get_args

Unit = Literal["reflectance", "dB", "m", "raw"]
Derive = Literal["relief", "terrain"]

# What a derived input is called, channel by channel: never absolute elevation, which identifies a scene. `relief`:
# height above the 5th percentile of the context window [m] and slope [degrees]; `terrain`, for networks of finite
# reach: height above the mean of the 15 x 15 pixels around [m] and slope.
DERIVED_CHANNELS: dict[Derive, tuple[str, ...]] = {
    "relief": ("height_above_p5", "slope"),
    "terrain": ("topographic_position_index", "slope"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Modality:
    """One sensor input of a model: the bands it reads, in order, in a fixed `unit` at `gsd_m` metres per pixel.

    `derive` names a per-window transform of the bands that the network sees in their place.
    """

    name: str
    bands: tuple[str, ...]
    unit: Unit
    gsd_m: float
    derive: Derive | None = None

    def __post_init__(self) -> None:
        if not self.bands:
            raise ValueError(f"{self.name}: a modality needs at least one band")
        if not 0 < self.gsd_m < inf:
            raise ValueError(f"{self.name}: gsd_m must be > 0, got {self.gsd_m}")
        if self.unit not in get_args(Unit):
            raise ValueError(f"{self.name}: unit must be one of {', '.join(get_args(Unit))}, got {self.unit!r}")
        if self.derive not in (None, *DERIVED_CHANNELS):
            raise ValueError(f"{self.name}: derive must be one of {', '.join(DERIVED_CHANNELS)}, got {self.derive!r}")

    @property
    def channels(self) -> int:
        """Number of channels that the network sees."""
        return len(DERIVED_CHANNELS[self.derive] if self.derive else self.bands)


@dataclass(frozen=True, slots=True)
class Availability:
    """A set of modalities as a bitmask over a model's modality order. Hashable; prints as `optical+sar`.

    Bit i stands for `order[i]`. It is the key of graphs, metrics and calibration strata.
    """

    bits: int
    order: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 0 <= self.bits < 1 << len(self.order):
            raise ValueError(f"bits {self.bits} do not fit {len(self.order)} modalities")

    @classmethod
    def of(cls, names: Iterable[str], order: tuple[str, ...]) -> Availability:
        """The availability that holds exactly `names`."""
        return cls(sum(1 << order.index(name) for name in set(names)), order)

    @classmethod
    def parse(cls, text: str, order: tuple[str, ...]) -> Availability:
        """The inverse of `str()`."""
        return cls.of(() if text == "none" else text.split("+"), order)

    @classmethod
    def every(cls, order: tuple[str, ...]) -> list[Availability]:
        """All non-empty availabilities, smallest sets first."""
        return [cls.of(c, order) for n in range(1, len(order) + 1) for c in combinations(order, n)]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for i, name in enumerate(self.order) if self.bits >> i & 1)

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return self.bits.bit_count()

    def __and__(self, other: Availability) -> Availability:
        return Availability(self.bits & other.bits, self.order)

    def __str__(self) -> str:
        return "+".join(self.names) or "none"
