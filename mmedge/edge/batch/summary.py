"""What became of the scenes of a batch: `Result` of each, `Summary` of all."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a scene. `why` it was mapped; `record` is the run as in `mmedge.infer/1`."""

    id: str
    status: Literal["done", "skipped", "failed"]
    map: Path
    why: str = ""
    reason: str = ""
    hint: str = ""
    attempts: int = 0
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    record: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The result as JSON of schema `mmedge.batch.scene/1`."""
        said = {"reason": self.reason, "hint": self.hint} if self.status == "failed" else {}
        return {
            "schema": "mmedge.batch.scene/1",
            "id": self.id,
            "status": self.status,
            "map": str(self.map),
            "why": self.why,
            **said,
            "attempts": self.attempts,
            "seconds": round(self.seconds, 3),
            "warnings": list(self.warnings),
            **({"run": self.record} if self.record else {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What became of a batch. `left` scenes were not begun, or not finished, because the batch stopped at a failure."""

    out: Path
    done: int
    skipped: int
    failed: tuple[Result, ...]
    left: int
    warnings: int
    seconds: float

    def text(self) -> str:
        """The summary for people: a line, and one for each scene that failed."""
        counts = f"{self.done} mapped, {self.skipped} up to date, {len(self.failed)} failed"
        left = f", {self.left} not finished" if self.left else ""
        failed = [f"  {r.id}: {r.reason}" + (f" (hint: {r.hint})" if r.hint else "") for r in self.failed]
        return "\n".join([f"{counts}{left} in {self.seconds:.1f} s", *failed])

    def document(self) -> dict[str, Any]:
        """The summary as JSON of schema `mmedge.batch/1`."""
        return {
            "schema": "mmedge.batch/1",
            "out": str(self.out),
            "done": self.done,
            "skipped": self.skipped,
            "failed": [{"id": r.id, "reason": r.reason, "hint": r.hint} for r in self.failed],
            "left": self.left,
            "warnings": self.warnings,
            "seconds": round(self.seconds, 3),
        }
