"""What the command line prints: data on stdout, everything else on stderr; no colour or bar where nobody looks."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


class Console:
    """Where a verb speaks. `quiet` silences warnings' company (progress, notes), never warnings themselves."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet, self.verbose = quiet, verbose
        self.warned: list[str] = []

    def warn(self, text: str) -> None:
        self.warned.append(text)
        print(f"warning: {text}", file=sys.stderr)

    def note(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr)

    def detail(self, text: str) -> None:
        if self.verbose:
            print(text, file=sys.stderr)

    def data(self, document: dict[str, Any], text: str, *, as_json: bool) -> None:
        """The verb's result: one JSON document, or text for people."""
        print(json.dumps(document, indent=1, ensure_ascii=False) if as_json else text)

    def progress(self, what: str, *, unit: str = "Mpx", per_unit: float = 1e6) -> Progress:
        return Progress(what, unit, per_unit) if self.watched() else SilentProgress()

    def watched(self) -> bool:
        """Whether somebody looks: stderr is a terminal, and neither -q nor the environment forbids a bar."""
        return sys.stderr.isatty() and not self.quiet and not os.environ.get("MMEDGE_NO_PROGRESS")


class Progress:
    """A bar with rate and ETA for work that is counted in pixels, or in what `unit` says."""

    def __init__(self, what: str, unit: str, per_unit: float) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=RichConsole(stderr=True),
            transient=True,
        )
        self._what, self._start = what, time.monotonic()
        self._unit, self._per_unit = unit, per_unit

    def __enter__(self) -> Progress:
        self._bar.start()
        self._task = self._bar.add_task(self._what, total=None, rate="")
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def update(self, done: int, total: int) -> None:
        rate = done / max(1e-9, time.monotonic() - self._start) / self._per_unit
        self._bar.update(self._task, completed=done, total=total, rate=f"{rate:.2f} {self._unit}/s")


class SilentProgress(Progress):
    """No bar: stderr is no terminal, or nobody wants one."""

    def __init__(self) -> None: ...

    def __enter__(self) -> SilentProgress:
        return self

    def __exit__(self, *exc: object) -> None: ...

    def update(self, done: int, total: int) -> None: ...
