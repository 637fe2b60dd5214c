"""Accuracy of a class map, from one confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Confusion:
    """Pixel counts (classes, classes): row = reference, column = map. Classes are indices, 0-based."""

    counts: Ints

    @classmethod
    def of(cls, reference: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer], classes: int) -> Confusion:
        """Counts where `reference` >= 0; both arrays have one shape."""
        if reference.shape != predicted.shape:
            raise ValueError(f"reference is {reference.shape}, map is {predicted.shape}")
        known = reference >= 0
        pairs = reference[known].astype(np.int64) * classes + predicted[known]
        return cls(np.bincount(pairs.ravel(), minlength=classes * classes).reshape(classes, classes))

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(self.counts + other.counts)

    @property
    def pixels(self) -> int:
        return int(self.counts.sum())

    @property
    def overall_accuracy(self) -> float:
        return float(np.trace(self.counts) / max(1, self.pixels))

    @property
    def average_accuracy(self) -> float:
        """Mean recall over the classes of the reference."""
        rows = self.counts.sum(1)
        return float((np.diag(self.counts)[rows > 0] / rows[rows > 0]).mean()) if rows.any() else 0.0

    @property
    def kappa(self) -> float:
        """Cohen's kappa."""
        total = max(1, self.pixels)
        chance = float(self.counts.sum(0) @ self.counts.sum(1)) / total**2
        return (self.overall_accuracy - chance) / (1 - chance) if chance < 1 else 0.0

    def iou(self) -> Floats:
        """Intersection over union per class; NaN for a class in neither reference nor map."""
        hit = np.diag(self.counts)
        union = self.counts.sum(0) + self.counts.sum(1) - hit
        return _ratio(hit, union)

    def f1(self) -> Floats:
        """F1 score per class; NaN for a class in neither reference nor map."""
        return _ratio(2.0 * np.diag(self.counts), self.counts.sum(0) + self.counts.sum(1))

    @property
    def mean_iou(self) -> float:
        """Mean IoU over the classes of the reference."""
        return self._over_reference(self.iou())

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes of the reference."""
        return self._over_reference(self.f1())

    def _over_reference(self, score: Floats) -> float:
        present = self.counts.sum(1) > 0
        return float(score[present].mean()) if present.any() else 0.0


def _ratio(part: npt.NDArray[np.generic], whole: Ints) -> Floats:
    ratio: Floats = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return ratio


def calibration_error(confidence: Floats, right: npt.NDArray[np.bool_], bins: int = 15) -> float:
    """Expected calibration error of N answers: mean gap between confidence (0..1) and accuracy, over equal bins.

    Guo et al., "On Calibration of Modern Neural Networks", arXiv:1706.04599. NaN where there is no answer.
    """
    if not len(confidence):
        return float("nan")
    index = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    said = np.bincount(index, confidence, minlength=bins)
    was = np.bincount(index, right, minlength=bins)
    return float(np.abs(said - was).sum() / len(confidence))
