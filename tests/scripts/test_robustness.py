"""Robustness curves: where a sensor fails, what the two ways make of it, and a page made of rows."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from robustness import CAUSES, failed, failing, wanted  # noqa: E402
from robustness_page import BUNDLES, FRACTIONS, page, plot  # noqa: E402

from mmedge.edge.training.samples import LabelledScene  # noqa: E402


def scene() -> LabelledScene:
    bands = {"optical": 9, "sar": 2, "elevation": 1}
    rng = np.random.default_rng(0)
    data = {m: rng.normal(5, 1, (n, 224, 224)).astype(np.float32) for m, n in bands.items()}
    valid = {m: np.ones((224, 224), np.bool_) for m in bands}
    valid["sar"][:10] = False
    return LabelledScene("made", data, valid, np.zeros((224, 224), np.int64), (0, 0))


@pytest.mark.parametrize(("sensor", "cause"), [(m, c) for m, causes in CAUSES.items() for c in causes])
def test_failures_cover_what_was_asked_for_and_are_drawn_anew_for_every_seed(sensor: str, cause: str) -> None:
    shares = []
    for fraction in FRACTIONS[1:-1]:
        key = {"sensor": sensor, "cause": cause, "fraction": fraction, "seed": 0}
        mask = failed(scene(), key)
        np.testing.assert_array_equal(mask, failed(scene(), key))
        assert (mask != failed(scene(), {**key, "seed": 1})).any()
        shares.append(mask.mean())
    most = 0.3 if cause == "lidar_void" else 0.15  # discs overlap
    assert np.abs(np.array(shares) - FRACTIONS[1:-1]).max() < most
    assert shares[-1] > shares[0]


def test_both_ways_lose_the_same_pixels_and_nothing_else() -> None:
    whole, key = scene(), {"sensor": "sar", "cause": "missing_swath", "fraction": 0.4, "seed": 0}
    mask, masked, zero = failed(whole, key), failing(whole, key, "masked"), failing(whole, key, "zero")
    np.testing.assert_array_equal(masked.valid["sar"], whole.valid["sar"] & ~mask)
    assert masked.data is whole.data
    np.testing.assert_array_equal(zero.valid["sar"], whole.valid["sar"] | mask)
    assert not zero.data["sar"][:, mask].any()
    np.testing.assert_array_equal(zero.data["sar"][:, ~mask], whole.data["sar"][:, ~mask])
    for other in (masked, zero):
        np.testing.assert_array_equal(other.data["optical"], whole.data["optical"])
        np.testing.assert_array_equal(other.valid["optical"], whole.valid["optical"])


def test_a_page_says_what_was_run_and_what_is_open() -> None:
    rows = []
    for key in wanted(2):
        if key["bundle"] != BUNDLES[0] or key["sensor"] == "elevation":
            continue
        scores = {
            way: {"oa": 0.6 - drop * key["fraction"], "miou": 0.4} for way, drop in (("masked", 0.1), ("zero", 0.5))
        }
        rows.append({**key, "failed": key["fraction"], **scores})
    made = {"cpu": "A", "flags": "b", "threads": 1, "torch": "2", "commit": "c"}
    text = page({"conditions": [made], "rows": rows})
    assert "optical, 40 % failed: -0.040 marked, -0.200 zeros; all of it: -0.100 and -0.500" in text
    assert "elevation: open." in text
    assert "| optical, clouds | marked invalid | .600 | .595 ± .000 |" in text
    assert "over 2 seeds" in " ".join(text.split())
    assert "| optical, clouds | .050 ± .000 | .100 ± .000 |" in text
    drawn = plot(rows)
    assert drawn.count("<polyline") == 3 * 2 * 2
    assert drawn.count('points=""') == 6
