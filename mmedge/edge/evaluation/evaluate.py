"""What a bundle is worth on labelled scenes: every availability through the graphs that make maps. No torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmedge.bundle import Bundle, LandClass
from mmedge.edge.evaluation.blocks import ELSEWHERE, TEST, Blocks
from mmedge.edge.evaluation.metrics import Confusion, calibration_error
from mmedge.edge.predict import Plan, predict
from mmedge.edge.runtime.session import Engines, GraphKey
from mmedge.errors import SceneError
from mmedge.geo_io.labels import Labels
from mmedge.geo_io.scene import Scene
from mmedge.grid import Grid, Window
from mmedge.modality import Availability
from mmedge.tile import Valid

Progress = Callable[[int, int], None]
UNMAPPED = 255
CELLS = 4
LATENCY_RUNS = 5
FIGURES = ("oa", "aa", "kappa", "miou", "macro_f1", "ece")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What the graphs of one availability say of N labelled pixels: class index (`UNMAPPED`: none) and percent."""

    classes: npt.NDArray[np.uint8]
    confidence: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Reference (N,) class indices of labelled pixels, and the answers of every availability."""

    reference: npt.NDArray[np.int16]
    answers: Mapping[Availability, Answers]

    def __add__(self, other: Judged) -> Judged:
        return Judged(
            reference=np.concatenate([self.reference, other.reference]),
            answers={
                a: Answers(
                    classes=np.concatenate([mine.classes, other.answers[a].classes]),
                    confidence=np.concatenate([mine.confidence, other.answers[a].confidence]),
                )
                for a, mine in self.answers.items()
            },
        )

    def confusion(self, availability: Availability, classes: int) -> Confusion:
        """Over the pixels that were mapped."""
        answers = self.answers[availability]
        mapped = answers.classes != UNMAPPED
        return Confusion.of(np.where(mapped, self.reference, -1), np.where(mapped, answers.classes, 0), classes)

    def best_subset(self, availability: Availability) -> float:
        """Accuracy of an oracle that knows, for each pixel, which of the availability's sensors to use."""
        right = np.zeros(len(self.reference), bool)
        mapped = self.answers[availability].classes != UNMAPPED
        for other, answers in self.answers.items():
            if other & availability == other:
                right |= answers.classes == self.reference
        return float(right[mapped].mean()) if mapped.any() else float("nan")


def judge(
    scene: Scene,
    labels: Labels,
    engines: Engines,
    *,
    threads: int,
    availabilities: Sequence[Availability] | None = None,
    progress: Progress = lambda done, total: None,
) -> Judged:
    """Map the labelled pixels of a scene with every set of the bundle's sensors; labels (rows, cols), -1 = none.

    Sets with a sensor that the scene lacks leave every pixel unmapped: it cannot say what they are worth. Raises
    SceneError where nothing is labelled.
    """
    order, engines = engines.bundle.order, engines.fitted(scene.grid)
    known = labels >= 0
    if not known.any():
        raise SceneError(f"no pixel of `{scene.name}` is labelled", hint="do scene and labels overlap?")
    rows, cols = np.flatnonzero(known.any(1)), np.flatnonzero(known.any(0))
    region = Window(int(rows[0]), int(cols[0]), int(np.ptp(rows)) + 1, int(np.ptp(cols)) + 1)
    wanted = availabilities or Availability.every(order)
    found: dict[Availability, Answers] = {}
    for i, availability in enumerate(wanted):
        found[availability] = _answers(scene, known, region, engines, availability, threads)
        progress(i + 1, len(wanted))
    return Judged(reference=labels[known], answers=found)


def _answers(
    scene: Scene, known: Valid, region: Window, engines: Engines, availability: Availability, threads: int
) -> Answers:
    classes = np.full(known.shape, UNMAPPED, np.uint8)
    confidence = np.full(known.shape, UNMAPPED, np.uint8)
    table = np.full(256, UNMAPPED, np.uint8)
    table[[c.value for c in engines.bundle.classes]] = np.arange(len(engines.bundle.classes))
    there = scene.only(availability.names)

    def keep(window: Window) -> Valid:
        mask: Valid = known[window.within(scene.grid.window)]
        return mask

    if set(availability) <= set(scene.sensors):
        for tile in predict(there, engines, region, Plan(threads=threads, cells=CELLS), keep=keep):
            where = tile.window.within(scene.grid.window)
            classes[where] = table[tile.classes]
            confidence[where] = tile.confidence
    return Answers(classes=classes[known], confidence=confidence[known])


def trained_on(bundle: Bundle, grid: Grid) -> npt.NDArray[np.uint8]:
    """Part of each pixel (rows, cols) in the bundle's training data, `ELSEWHERE` where it was not there.

    Of several scenes the one that made most of it counts: what trained in one was not tested in another.
    """
    parts = np.full(grid.shape, ELSEWHERE, np.uint8)
    for document in bundle.item["properties"].get("mmedge:training", {}).get("scenes", []):
        parts = np.minimum(parts, Blocks.parse(document).on(grid))
    return parts


def unseen(labels: Labels, bundle: Bundle, grid: Grid) -> Labels:
    """Labels without the pixels that trained or validated the bundle."""
    parts = trained_on(bundle, grid)
    return np.where((parts == TEST) | (parts == ELSEWHERE), labels, np.int16(-1))


def report(judged: Judged, bundle: Bundle, etas: Sequence[float] = ()) -> dict[str, Any]:
    """Scores of every availability, their mean and worst, mixtures and the best-subset oracle. Ready for JSON."""
    number = len(bundle.classes)
    every = {a: judged.confusion(a, number) for a in judged.answers}
    confusions = {a: c for a, c in every.items() if c.pixels}
    if not confusions:
        raise SceneError("no labelled pixel has a sensor of the model", hint=f"mmedge info SCENE -m {bundle.name}")
    rows = {str(a): figures(c, judged.answers[a], judged.reference, bundle.classes) for a, c in confusions.items()}
    some = {k: [row[k] for row in rows.values()] for k in FIGURES}
    worst = {k: max(v) if k == "ece" else min(v) for k, v in some.items()}
    full = max(confusions, key=len)
    return {
        "availability": rows,
        "mean": {k: round(float(np.mean(v)), 4) for k, v in some.items()},
        "worst": worst,
        "mixture": {f"{eta:g}": _mixture(confusions, full, eta) for eta in etas},
        "oracle_best_subset": {str(a): round(judged.best_subset(a), 4) for a in confusions},
        "confusion": {str(a): c.counts.tolist() for a, c in confusions.items()},
    }


def figures(
    confusion: Confusion, answers: Answers, reference: npt.NDArray[np.int16], classes: Sequence[LandClass]
) -> dict[str, Any]:
    """The figures of one availability; classes by name, those of the reference alone."""
    mapped = answers.classes != UNMAPPED
    right = answers.classes[mapped] == reference[mapped]
    present = confusion.counts.sum(1) > 0
    return {
        "pixels": confusion.pixels,
        "unmapped": int((~mapped).sum()),
        "oa": round(confusion.overall_accuracy, 4),
        "aa": round(confusion.average_accuracy, 4),
        "kappa": round(confusion.kappa, 4),
        "miou": round(confusion.mean_iou, 4),
        "macro_f1": round(confusion.macro_f1, 4),
        "ece": round(calibration_error(answers.confidence[mapped] / 100, right), 4),
        "f1": _by_class(confusion.f1(), present, classes),
        "iou": _by_class(confusion.iou(), present, classes),
    }


def _by_class(
    values: npt.NDArray[np.float64], present: npt.NDArray[np.bool_], classes: Sequence[LandClass]
) -> dict[str, float]:
    return {c.name: round(float(v), 4) for c, v, p in zip(classes, values, present, strict=True) if p}


def _mixture(confusions: Mapping[Availability, Confusion], full: Availability, eta: float) -> dict[str, float]:
    """Expected accuracy where a share `eta` of the data lacks something, each incomplete set as often as another."""
    incomplete = [c for a, c in confusions.items() if a != full]
    share = confusions[full].counts / confusions[full].pixels * (1 - eta if incomplete else 1)
    for c in incomplete:
        share = share + eta / len(incomplete) * c.counts / c.pixels
    hit, rows, cols = np.diag(share), share.sum(1), share.sum(0)
    there = rows > 0
    return {
        "oa": round(float(hit.sum()), 4),
        "aa": round(float((hit[there] / rows[there]).mean()), 4),
        "miou": round(float((hit[there] / (rows + cols - hit)[there]).mean()), 4),
    }


def cost(engines: Engines) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of each availability: multiply-adds as the bundle says, and milliseconds a window here, not where it was made."""
    bundle = engines.bundle
    said = bundle.item["properties"].get("mmedge:cost", {})
    for availability in Availability.every(bundle.order):
        side = bundle.tiling.window_px
        feeds: dict[str, npt.NDArray[Any]] = {}
        for name in availability:
            feeds[name] = np.zeros((engines.batch, bundle.modality(name).channels, side, side), np.float32)
            feeds[f"{name}_valid"] = np.ones((engines.batch, 1, side, side), bool)
        session = engines.session(GraphKey(availability, False))
        seconds = []
        for _ in range(LATENCY_RUNS):
            start = time.perf_counter()
            session.run(feeds)
            seconds.append(time.perf_counter() - start)
        ms = 1000 * float(np.median(seconds)) / engines.batch
        operations = {k: v for k, v in said.get(str(availability), {}).items() if k.startswith("macs")}
        yield str(availability), {**operations, "ms_per_window": round(ms, 3)}
