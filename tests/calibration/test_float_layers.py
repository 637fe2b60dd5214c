"""Which layers stay float: a ranking for each set of sensors, and what the report says of it."""

from __future__ import annotations

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("safetensors")

from mmedge.calibration.report import float_layers
from mmedge.calibration.sensitivity import Sensitivity, worst
from mmedge.modality import Availability

ORDER = ("optical", "sar")
OPTICAL, SAR, BOTH = (Availability.of(names, ORDER) for names in (["optical"], ["sar"], ORDER))


def test_a_layer_of_several_towers_counts_where_it_is_noisiest() -> None:
    optical = [Sensitivity("trunk", 30.0, 0.01), Sensitivity("optical", 40.0, 0.0)]
    sar = [Sensitivity("sar", 10.0, 0.2), Sensitivity("trunk", 20.0, 0.05)]
    assert worst(optical, sar) == [sar[0], sar[1], optical[1]]
    assert worst(optical) == optical


def test_a_layer_that_is_float_somewhere_says_where() -> None:
    kept = {OPTICAL: {"head": "noise"}, SAR: {"head": "noise", "stem": "more noise"}, BOTH: {"head": "noise"}}
    assert float_layers(kept) == {"head": "noise", "stem": "more noise; for sar"}
