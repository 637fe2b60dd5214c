"""What a graph costs, counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmedge.bundle import open_bundle
from mmedge.edge.macs import graph_macs
from mmedge.edge.runtime.session import GraphKey, input_shapes, stored_graph
from mmedge.modality import Availability


def test_two_convolutions(small: Path) -> None:
    """Four bands and a mask to 8 channels, then to 4 classes, 3 x 3 each."""
    bundle = open_bundle(small)
    key = GraphKey(Availability.of(["optical"], bundle.order), False)
    shapes = input_shapes(bundle, key, 2)
    assert graph_macs(stored_graph(bundle, key, "fp32"), shapes) == 2 * 64 * 64 * 9 * (5 * 8 + 8 * 4)


def test_a_network_of_any_window_is_counted_whole() -> None:
    """Its graphs compute shapes themselves; what hangs on them is not lost: the cost grows with the window's area."""
    bundle = open_bundle("mamol-conv")
    key = GraphKey(Availability.of(["sar"], bundle.order), False)
    path = stored_graph(bundle, key, "fp32")
    shapes = input_shapes(bundle, key, 1)
    macs = [graph_macs(path, {name: (*s[:2], side, side) for name, s in shapes.items()}) for side in (80, 320)]
    assert macs[1] == pytest.approx(16 * macs[0], rel=1e-3)
    assert macs[1] == bundle.item["properties"]["mmedge:cost"]["sar"]["macs"]
