"""What quantization cost and brought: a row for each availability, and the report of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmedge.calibration.score import cpu_ms, pixels, timing_feeds
from mmedge.calibration.windows import LabelledWindow
from mmedge.edge.device import cpu_flags, cpu_name
from mmedge.edge.runtime.session import Engines, stored_graph
from mmedge.modality import Availability


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One availability before and after. Accuracy in percent, ECE in percent, time in ms of CPU for a batch: 8 windows,
    or as many as a map runs at once.
    """

    availability: str
    pixels: int
    fp32_oa: float
    int8_oa: float
    fp32_miou: float
    int8_miou: float
    agreement: float
    sqnr_db: float
    temperature: float
    ece_before: float
    ece_after: float
    fp32_ms: float
    int8_ms: float
    fp32_bytes: int
    int8_bytes: int

    @property
    def drop(self) -> float:
        """Points of overall accuracy that int8 loses."""
        return round(self.fp32_oa - self.int8_oa, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeReport:
    """What came of it. `float_layers`: name -> why it is not int8. `passed`: the gates; None: nothing has labels."""

    output: Path
    rows: tuple[Row, ...]
    float_layers: Mapping[str, str]
    bundle_bytes: int
    recipe: Mapping[str, Any]
    passed: bool | None
    machine: str = field(default_factory=lambda: f"{cpu_name()}: {' '.join(cpu_flags())}")

    def document(self) -> dict[str, Any]:
        """As JSON of schema `mmedge.quantize/1`."""
        rows = [{**asdict(row), "drop": row.drop} for row in self.rows]
        return {"schema": "mmedge.quantize/1", **asdict(self), "output": str(self.output), "rows": rows}


def float_layers(kept: Mapping[Availability, Mapping[str, str]]) -> dict[str, str]:
    """Each layer that is float somewhere: why, and for which availabilities unless for all."""
    found: dict[str, tuple[str, list[str]]] = {}
    for availability, layers in kept.items():
        for name, why in layers.items():
            found.setdefault(name, (why, []))[1].append(str(availability))
    return {
        name: why if len(where) == len(kept) else f"{why}; for {', '.join(where)}"
        for name, (why, where) in sorted(found.items())
    }


def compare(
    availability: Availability, fp32: Engines, int8: Engines, windows: Sequence[LabelledWindow], temperature: float
) -> Row:
    """Both precisions on the same windows of one availability; the time of both in turns."""
    before, after = pixels(fp32, windows), pixels(int8, windows)
    scores = [p.known for p in (before, after)]
    oa = [100 * p.confusion().overall_accuracy for p in scores]
    miou = [100 * p.confusion().mean_iou for p in scores]
    key = next((w.key for w in windows if not w.key.mixed), windows[0].key)
    feeds = timing_feeds(windows, key, fp32.batch)
    ms = cpu_ms({"fp32": (fp32.session(key), feeds), "int8": (int8.session(key), feeds)})
    sizes = [stored_graph(e.bundle, key, p).stat().st_size for e, p in ((fp32, "fp32"), (int8, "int8"))]
    return Row(
        availability=str(availability),
        pixels=len(scores[0].labels),
        fp32_oa=round(oa[0], 3),
        int8_oa=round(oa[1], 3),
        fp32_miou=round(miou[0], 3),
        int8_miou=round(miou[1], 3),
        agreement=round(100 * after.agreement(before), 3),
        sqnr_db=round(after.sqnr_db(before), 2),
        temperature=temperature,
        ece_before=round(100 * scores[1].calibration_error(), 2),
        ece_after=round(100 * scores[1].calibration_error(temperature), 2),
        fp32_ms=ms["fp32"],
        int8_ms=ms["int8"],
        fp32_bytes=sizes[0],
        int8_bytes=sizes[1],
    )
