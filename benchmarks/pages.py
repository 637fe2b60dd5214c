"""Parts of a Markdown page that are made from figures: what stands between two comments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Part:
    """Where a part stands: between the comments `begin` and `end` of `page`. `command` writes it."""

    page: Path
    begin: str
    end: str
    command: str

    def write(self, content: str, *, check: bool) -> None:
        """Put `content` between the comments; or, to check, exit where something else stands there."""
        text = self.page.read_text(encoding="utf-8")
        before, _, rest = text.partition(self.begin)
        made = before + "\n".join([self.begin, content, self.end]) + rest.partition(self.end)[2]
        if check:
            sys.exit(f"stale: {self.page}; run `{self.command}`" if made != text else 0)
        self.page.write_text(made, encoding="utf-8")

    def main(self, description: str | None, content: Callable[[], str]) -> None:
        """The command line of a module that makes one part and nothing else."""
        parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--check", action="store_true", help="change nothing, exit 1 where the page is stale")
        self.write(content(), check=parser.parse_args().check)
