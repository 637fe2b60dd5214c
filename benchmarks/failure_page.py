"""The page on detected failures, from what was measured: `python -m benchmarks.failure_page`; `--check` compares."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

STORED, PAGE = (Path(f"docs/results/failure_detection.{kind}") for kind in ("json", "md"))


def page(result: dict[str, Any]) -> str:
    """The results in Markdown."""
    claimed = ", ".join(f"`{cause}` {share:.2%}" for cause, share in result["clouds_taken_for"].items())
    speed = result["speed"]
    return f"""# Detection of sensor failures, measured

`{result["command"]}`, commit {result["commit"]}, seeds {", ".join(map(str, result["seeds"]))}. Counts are pixels.

## Injected, at known positions, into the four TerraMesh scenes (224 x 224 px)
`false_alarm_rate`: of the pixels outside the injection, those given the injected cause. `good_pixels_lost`: of the same
pixels, those lost to any cause.

{table(result["injected"])}

## Real failures

{table(result["real"])}

## Scenes without a known failure: usable pixels lost
"Held out": looked at only after the thresholds were set. Restricted scenes are evaluated here, never copied.

{table(result["clean"])}

The SAR scenes above with 40 px cut off at each side in turn, for border noise that is not there:

{table(result["cut_borders"])}

Real cloud shapes (19), declared invalid, taken for: {claimed or "nothing"}.

Speed of `survey`: {speed["mpx"]} Mpx of {speed["bands"]} bands in {speed["seconds"]} s on one {speed["cpu"]} machine.
"""


def table(rows: list[dict[str, Any]]) -> str:
    keys = list(rows[0])
    lines = [" | ".join(keys), " | ".join("---" for _ in keys)]
    lines += [" | ".join("-" if row[k] is None else str(row[k]) for k in keys) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 where the page is stale")
    text = page(json.loads(STORED.read_text(encoding="utf-8")))
    if parser.parse_args().check:
        sys.exit(f"stale: {PAGE}; run `python -m benchmarks.failure_page`" if PAGE.read_text("utf-8") != text else 0)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
