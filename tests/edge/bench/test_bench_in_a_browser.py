"""The report of `mmedge bench` in a real browser."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmedge.edge.bench.page import COLORS, page

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs a Chromium: apt-get install chromium")


def report() -> dict[str, Any]:
    """Two sets of sensors, three batch sizes, made-up latencies: what the page is drawn from, not what it measures."""
    rng = np.random.default_rng(0)
    rows = []
    for k, name in enumerate(("optical", "optical+sar")):
        for scenario, batches in (("single-stream", (1,)), ("offline", (1, 4, 8))):
            for batch in batches:
                latencies = sorted((20 + 10 * k) * batch * (1 + rng.gamma(2, 0.05, 200)))
                rows.append(
                    {
                        "backend": "openvino",
                        "precision": "fp32",
                        "scenario": scenario,
                        "threads": 2,
                        "batch": batch,
                        "availability": name,
                        "mixed": False,
                        "latency_ms": dict.fromkeys(("p50", "p90", "p95", "p99"), latencies[99]),
                        "latencies_ms": latencies,
                        "tiles_per_s": 40.0,
                        "mpx_per_s": 0.1 * (1 + batch / 8) / (1 + k),
                        "peak_rss_mib": 300.0,
                        "energy": {"j_per_tile": 0.3, "j_per_km2": 2.0 + k + 1 / batch, "mean_w": 12.0},
                    }
                )
    health = {"power_mode": "MAXN", "clocks_mhz": {"cpu": 1500.0}}
    return {
        "version": "0",
        "model": "small <net>",
        "model_sha256": "0" * 64,
        "machine": {"cpu": "CPU", "cpu_flags": "avx2", "gpu": None, "threads": 2},
        "energy": {"meters": ["INA238 (VIN)"], "missing": [], "idle_w": 5.0, "rate_hz": 20.0},
        "health": {"before": health},
        "rows": rows,
        "end_to_end": None,
    }


def chromium(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    done = subprocess.run([CHROMIUM, *flags, *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_the_page_is_drawn(tmp_path: Path) -> None:
    target, picture = tmp_path / "bench.html", tmp_path / "bench.png"
    target.write_text(page(report()), encoding="utf-8")
    address = target.resolve().as_uri()
    chromium(tmp_path, f"--screenshot={picture}", "--window-size=1000,1900", address)
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    for color in COLORS[:2]:  # both lines of a plot are there
        wanted = np.array(list(bytes.fromhex(color.removeprefix("#"))))
        assert (np.abs(pixels - wanted).max(axis=2) < 24).sum() > 300
    assert (pixels.min(axis=2) < 80).mean() > 0.005  # and text
    dom = chromium(tmp_path, "--dump-dom", address).stdout
    assert dom.count("<svg") == 3
    assert "small &lt;net&gt;" in dom
