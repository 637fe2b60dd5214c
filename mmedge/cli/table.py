"""How a batch is shown while it runs: a line for each finished scene, and on a terminal what every worker is doing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmedge.cli.console import Console

if TYPE_CHECKING:
    from rich.table import Table

    from mmedge.edge.batch.crew import Worker
    from mmedge.edge.batch.summary import Result


def batch_table(console: Console, scenes: int) -> BatchLines:
    """A live table where somebody looks, else lines."""
    return BatchTable(console, scenes) if console.watched() else BatchLines(console, scenes)


class BatchLines:
    """A line a scene, for a terminal and for a log."""

    def __init__(self, console: Console, scenes: int) -> None:
        self._console, self._scenes, self._seen = console, scenes, 0

    def __enter__(self) -> BatchLines:
        return self

    def __exit__(self, *exc: object) -> None: ...

    def finished(self, result: Result) -> None:
        self._seen += 1
        self._say(f"[{self._seen}/{self._scenes}] {_line(result)}")
        for warning in result.warnings:
            self._console.warn(f"{result.id}: {warning}")

    def tick(self, workers: Sequence[Worker]) -> None: ...

    def _say(self, line: str) -> None:
        self._console.note(line)


class BatchTable(BatchLines):
    """The same above a live table: worker, scene, share of its pixels, seconds."""

    def __init__(self, console: Console, scenes: int) -> None:
        from rich.console import Console as RichConsole
        from rich.live import Live

        super().__init__(console, scenes)
        self._start = time.monotonic()
        self._live = Live(console=RichConsole(stderr=True), auto_refresh=False, transient=True)

    def __enter__(self) -> BatchTable:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def tick(self, workers: Sequence[Worker]) -> None:
        self._live.update(self._table(workers), refresh=True)

    def _say(self, line: str) -> None:
        self._live.console.print(line, markup=False, highlight=False)

    def _table(self, workers: Sequence[Worker]) -> Table:
        from rich.table import Table

        elapsed = time.monotonic() - self._start
        left = f", about {elapsed / self._seen * (self._scenes - self._seen):.0f} s to go" if self._seen else ""
        table = Table(title=f"{self._seen} of {self._scenes} scenes in {elapsed:.0f} s{left}", title_justify="left")
        for name in ("worker", "scene", "done", "time"):
            table.add_column(name, justify="left" if name == "scene" else "right")
        for worker in workers:
            done, total = worker.progress
            share = f"{done / total:.0%}" if total else ("" if worker.ready else "opens the model")
            doing = (worker.task.id, share, f"{time.monotonic() - worker.since:.0f} s") if worker.task else ("", "", "")
            table.add_row(str(worker.number), *doing)
        return table


def _line(result: Result) -> str:
    if result.status == "skipped":
        return f"up to date  {result.id}"
    if result.status == "failed":
        return f"FAILED      {result.id}: {result.reason}"
    sensors = "+".join(result.record.get("sensors", ()))
    again = f", attempt {result.attempts}" if result.attempts > 1 else ""
    return f"mapped      {result.id} in {result.seconds:.1f} s from {sensors} ({result.why}{again})"
