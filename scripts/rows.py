"""Files of results that grow by a row at a time: a JSON list, a row a line."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; none where there is no file yet."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def append_row(path: Path, row: Row) -> None:
    """Add a row to the file, whole or not at all; processes that fill one file wait for each other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock.part").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write_rows(path, [*read_rows(path), row])


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    part = path.with_suffix(".part")
    part.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", encoding="utf-8")
    part.replace(path)
