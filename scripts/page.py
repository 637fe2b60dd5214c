"""Parts of a page that is made from figures: cells, tables, paragraphs."""

from __future__ import annotations

from textwrap import fill

import numpy as np

OPEN = "open"


def cell(values: list[float]) -> str:
    """Mean and, of several seeds, standard deviation; `open` where nothing was run."""
    if not values:
        return OPEN
    shown = [np.mean(values), *([np.std(values, ddof=1)] if len(values) > 1 else [])]
    return " ± ".join(f"{value:.3f}".removeprefix("0") for value in shown)


def table(head: list[str], body: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def wrapped(text: str) -> str:
    return fill(text, 120, break_long_words=False, break_on_hyphens=False)
