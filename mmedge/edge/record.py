"""What a run did: the facts that go to `--json`, to the STAC item and to the last line on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmedge import __version__
from mmedge.bundle import Bundle
from mmedge.geo_io.maps.mapwriter import MapCounts
from mmedge.geo_io.maps.outputs import Outputs
from mmedge.geo_io.maps.stac import Provenance
from mmedge.modality import Availability


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One finished run. `seconds` (read, compute, write, wait, total) and `device` are said, not written into outputs.

    `strange`: share of each sensor that looks like nothing in the model's training data (see `domain`).
    """

    outputs: Outputs
    bundle: Bundle
    scene_name: str
    sensors: tuple[str, ...]
    counts: MapCounts
    provenance: Provenance
    device: str
    threads: int
    readers: int
    strange: Mapping[str, float]
    seconds: Mapping[str, float]

    def shares(self) -> dict[str, float]:
        """Share of the grid's pixels made from each combination of sensors, and `none`."""
        order, pixels = self.bundle.traces, self.counts.pixels
        found = {str(Availability(bits, order)): n / pixels for bits, n in sorted(self.counts.sensors.items())}
        return {**found, "none": self.counts.nodata / pixels}

    def classes(self) -> dict[str, float]:
        """Share of the mapped pixels of each class that occurs."""
        names = {c.value: c.name for c in self.bundle.classes}
        return {names[value]: n / self.counts.mapped for value, n in sorted(self.counts.classes.items())}

    def used(self) -> tuple[str, ...]:
        """Sensors, observed or recovered, that at least one pixel was made from."""
        bits = 0
        for combination in self.counts.sensors:
            bits |= combination
        return Availability(bits, self.bundle.traces).names

    def unused(self) -> tuple[str, ...]:
        """Sensors that the scene has but that are valid nowhere."""
        return tuple(name for name in self.sensors if name not in self.used())

    def document(self) -> dict[str, Any]:
        """The run as JSON of schema `mmedge.infer/1`."""
        return {
            "schema": "mmedge.infer/1",
            "version": __version__,
            "scene": self.scene_name,
            "outputs": [str(path) for path in self.outputs.paths],
            "model": self.bundle.name,
            "model_sha256": self.bundle.sha256,
            "backend": self.provenance.backend,
            "device": self.device,
            "precision": self.provenance.precision,
            "threads": self.threads,
            "sensors": list(self.sensors),
            "inputs": [{"name": i.name, "sha256": i.sha256} for i in self.provenance.inputs],
            "pixels": self.counts.pixels,
            "mapped": self.counts.mapped,
            "availability": {name: round(share, 6) for name, share in self.shares().items()},
            "classes": {name: round(share, 6) for name, share in self.classes().items()},
            "acquired": {name: self.provenance.acquired.get(name) for name in self.sensors},
            "lost": {name: dict(shares) for name, shares in self.provenance.lost.items()},
            "notes": list(self.provenance.assumptions),
            "strange": {name: round(share, 4) for name, share in self.strange.items()},
            "seconds": {name: round(value, 4) for name, value in self.seconds.items()},
            "utilisation": self.utilisation(),
        }

    def summary(self) -> str:
        """One line for people."""
        made = ", ".join(f"{share:.1%} {name}" for name, share in self.shares().items() if share)
        rate = self.counts.pixels / max(1e-9, self.seconds["total"]) / 1e6
        done = f"mapped {self.counts.mapped} of {self.counts.pixels} px ({made})"
        return f"{done} in {self.seconds['total']:.1f} s, {rate:.2f} Mpx/s"

    def utilisation(self) -> dict[str, float]:
        """How busy each stage was, as a share of the run and of its threads; `wait`: how long the writer had nothing to
        write. The stage near 1 is the one that makes the run as long as it is.
        """
        threads = {"read": self.readers, "compute": self.threads, "write": 1, "wait": 1}
        total = max(1e-9, self.seconds["total"])
        return {stage: round(self.seconds[stage] / n / total, 3) for stage, n in threads.items()}

    def stages(self) -> str:
        """The utilisation of the stages in one line."""
        return "busy: " + ", ".join(f"{stage} {share:.0%}" for stage, share in self.utilisation().items())

    def timing(self) -> str:
        """Where the time went: seconds of each stage, summed over its threads."""
        stages = ", ".join(f"{name} {value:.2f} s" for name, value in self.seconds.items())
        return (
            f"{self.provenance.backend} {self.provenance.precision} on {self.device}, {self.threads} threads: {stages}"
        )
