"""The documents name only files that are there, and the page of each verb names its flags."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from mmedge.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = [p for where in ("", "docs", "examples", "tests") for p in (ROOT / where).glob("**/*.md" if where else "*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing


def verbs(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every verb with its click command; `bundle create` is on the page of `bundle`."""
    if not hasattr(command, "commands"):
        yield name, command
    for child, below in getattr(command, "commands", {}).items():
        yield from verbs(below, name or child)


def flags(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


@pytest.mark.parametrize(("verb", "command"), [*verbs(typer.main.get_command(app))])
def test_every_flag_has_help_and_stands_on_its_verbs_page(verb: str, command: Any) -> None:
    """Or in the table of flags that all verbs share, on the page of `infer`."""
    shared = (ROOT / "docs/cli/infer.md").read_text(encoding="utf-8").partition("\n## Flags of every verb\n")[2]
    said = flags((ROOT / f"docs/cli/{verb}.md").read_text(encoding="utf-8")) | flags(shared.partition("\n## ")[0])
    options = [option for option in command.params if option.param_type_name == "option"]
    names = {name for option in options for name in (*option.opts, *option.secondary_opts)}
    assert flags(" ".join(names)) - said == set()
    assert not [option.name for option in options if not option.help]
