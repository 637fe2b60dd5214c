"""What a bundle is worth on labelled windows, in the backend and with the graphs that a map would use."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmedge.calibration.windows import LabelledWindow, stack
from mmedge.edge.evaluation.metrics import Confusion, calibration_error
from mmedge.edge.runtime.session import Engines, Feeds, GraphKey, Session
from mmedge.tile import Data

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pixels:
    """Logits (N, classes) of every pixel that was scored, and its class index (N,), -1 where nobody knows."""

    logits: Data
    labels: Ints

    @property
    def known(self) -> Pixels:
        rows = self.labels >= 0
        return Pixels(self.logits[rows], self.labels[rows])

    def confusion(self) -> Confusion:
        return Confusion.of(self.labels, self.logits.argmax(1), self.logits.shape[1])

    def agreement(self, other: Pixels) -> float:
        """Share of the pixels of one class in both."""
        return float((self.logits.argmax(1) == other.logits.argmax(1)).mean())

    def sqnr_db(self, reference: Pixels) -> float:
        """Signal to quantization noise of the logits, in dB."""
        noise = float(((self.logits - reference.logits).astype(np.float64) ** 2).mean())
        return float(10 * np.log10((reference.logits.astype(np.float64) ** 2).mean() / max(noise, 1e-30)))

    def calibration_error(self, temperature: float = 1.0) -> float:
        """Expected calibration error of pixels whose class is known; 0 where there is none."""
        right = self.logits.argmax(1) == self.labels
        return calibration_error(_confidence(self.logits / np.float32(temperature)), right) if len(right) else 0.0


def pixels(engines: Engines, windows: Sequence[LabelledWindow]) -> Pixels:
    """Run windows, those of one graph together; the cores' pixels that some sensor saw, in a fixed order."""
    tiling, logits, labels = engines.bundle.tiling, [], []
    core = slice(tiling.halo_px, tiling.halo_px + tiling.stride_px)
    keys = sorted({w.key for w in windows}, key=str)
    for key in keys:
        some = [w for w in windows if w.key == key]
        session = engines.session(key)
        done = [_padded(session, feeds, engines.batch)[:, :, core, core] for feeds in stack(some, engines.batch)]
        seen = np.stack([_seen(w)[core, core] for w in some])
        logits.append(np.moveaxis(np.concatenate(done), 1, -1)[seen])
        labels.append(np.stack([w.labels for w in some])[seen])
    return Pixels(np.concatenate(logits), np.concatenate(labels))


def _seen(window: LabelledWindow) -> npt.NDArray[np.bool_]:
    """Pixels (window_px, window_px) that some sensor saw."""
    masks = [window.feeds[f"{m}_valid"][0, 0] for m in window.key.availability]
    seen: npt.NDArray[np.bool_] = np.logical_or.reduce(masks)
    return seen


def _padded(session: Session, feeds: Feeds, size: int) -> Data:
    count = len(next(iter(feeds.values())))
    if count < size:
        feeds = {n: np.concatenate([a, np.zeros((size - count, *a.shape[1:]), a.dtype)]) for n, a in feeds.items()}
    return session.run(feeds)[:count].copy()


def _confidence(logits: Data) -> npt.NDArray[np.float64]:
    power = np.exp((logits - logits.max(1, keepdims=True)).astype(np.float64))
    top: npt.NDArray[np.float64] = 1 / power.sum(1)
    return top


def fit_temperature(found: Pixels) -> float:
    """The temperature of least cross-entropy, by golden section over its logarithm (arXiv:1706.04599)."""
    rows = np.arange(len(found.labels))

    def loss(log_t: float) -> float:
        z = found.logits / np.exp(np.float32(log_t))
        top = z.max(1)
        return float((np.log(np.exp(z - top[:, None]).sum(1)) + top - z[rows, found.labels]).mean())

    ratio, low, high = (5**0.5 - 1) / 2, np.log(0.2), np.log(10.0)
    for _ in range(25):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if loss(a) < loss(b) else (a, high)
    return round(float(np.exp((low + high) / 2)), 4)


def cpu_ms(sessions: Mapping[str, tuple[Session, Feeds]], *, repeats: int = 10) -> dict[str, float]:
    """Least CPU time [ms] of one call of each session, called in turns: other work on the machine counts little."""
    best = dict.fromkeys(sessions, float("inf"))
    for _ in range(repeats):
        for name, (session, feeds) in sessions.items():
            best[name] = min(best[name], _timed(session, feeds))
    return {name: round(ms, 2) for name, ms in best.items()}


def _timed(session: Session, feeds: Feeds) -> float:
    start = time.process_time()
    session.run(feeds)
    return (time.process_time() - start) * 1e3


def timing_feeds(windows: Sequence[LabelledWindow], key: GraphKey, size: int) -> Feeds:
    """One full batch of real windows of a graph, repeated where there are fewer."""
    some = [w for w in windows if w.key == key]
    return stack([some[i % len(some)] for i in range(size)], size)[0]
