"""`mmedge doctor`: what this machine has, and how to get what it lacks."""

from __future__ import annotations

from typing import Any

from mmedge.cli import options as o
from mmedge.cli.console import Console

NAME = "doctor"


def run(as_json: o.Json = False) -> int:
    """Say what this machine can run: CPU, memory, backends, extras, and the fix for each that is missing.

    Example: mmedge doctor
    """
    from mmedge.edge.device import examine

    document: dict[str, Any] = examine()
    Console().data(document, _text(document), as_json=as_json)
    return 0


def _text(document: dict[str, Any]) -> str:
    facts = [f"{key}: {value}" for key, value in document.items() if key not in ("schema", "packages")]
    rows = [
        f"  {'ok     ' if row['version'] else 'missing'}  {name} {row['version'] or ''}".rstrip()
        + ("" if row["version"] else f"  ({row['for']}: {row['fix']})")
        for name, row in document["packages"].items()
    ]
    return "\n".join([*facts, "packages:", *rows])
