"""`doctor` on this machine: facts that can be checked, and unknowns that say so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmedge.edge.device import _clocks, _say, examine, jetson, memory_gib, tensorrt_version


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="needs /proc")
def test_memory_is_that_of_the_kernel() -> None:
    total, free = memory_gib(), memory_gib("MemAvailable")
    assert total == pytest.approx(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, rel=0.02)
    assert free is not None
    assert 0 < free < total


def test_tools_that_are_not_there_say_so() -> None:
    assert _say("no-such-tool-of-jetpack", "-q").startswith("unknown: ")
    assert _say("false").startswith("unknown: `false`")
    assert _say("echo", "NV Power Mode:", "MAXN") == "NV Power Mode: MAXN"


def test_pinned_clocks_have_one_frequency(tmp_path: Path) -> None:
    for cpu, least in (("cpu0", 700), ("cpu1", 2000)):
        folder = tmp_path / cpu / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_min_freq").write_text(f"{least}\n")
        (folder / "scaling_max_freq").write_text("2000\n")
    assert _clocks(tmp_path) == "not pinned: sudo jetson_clocks"
    (tmp_path / "cpu0/cpufreq/scaling_min_freq").write_text("2000\n")
    assert _clocks(tmp_path) == "pinned"
    assert _clocks(tmp_path / "nothing") == "unknown"


@pytest.mark.skipif(Path("/etc/nv_tegra_release").exists(), reason="this is a Jetson")
def test_no_jetson_no_power_mode() -> None:
    assert jetson() == {}
    document = examine()
    assert "power_mode" not in document
    assert document["tensorrt"] == tensorrt_version()
