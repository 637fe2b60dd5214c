"""Power meters on files as three Jetsons and a PC have them; nothing where nothing can be read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import jetson_trees
import pytest
from jetson_trees import lay

from mmedge.edge.bench.health import clocks_mhz, temperatures_c, throttle_events
from mmedge.edge.bench.power import RailMeter, find_meters, metering


@pytest.mark.parametrize(
    ("tree", "name", "watts"),
    [
        (jetson_trees.orin_nano, "INA3221 (VDD_IN)", 6.0),
        (jetson_trees.agx_orin, "INA3221 (VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0)", 5.7 + 1.9 + 4.0),
        (jetson_trees.thor, "INA238 (VIN)", 31.5),
    ],
)
def test_the_power_of_a_jetson_is_that_of_its_board(
    tmp_path: Path, tree: Callable[[Path], Path], name: str, watts: float
) -> None:
    (meter,) = find_meters(tree(tmp_path)).found
    assert isinstance(meter, RailMeter)
    assert meter.name == name
    assert meter.watts() == pytest.approx(watts)


def test_power_is_integrated_between_readings(tmp_path: Path) -> None:
    jetson_trees.thor(tmp_path)
    seconds = iter([0.0, 1.0, 3.0])
    (found,) = find_meters(tmp_path).found
    meter = RailMeter("INA238", found._rails, lambda: next(seconds))  # type: ignore[attr-defined]
    assert meter.joules() == pytest.approx(31.5)
    (tmp_path / "sys/class/hwmon/hwmon2/power1_input").write_text("10500000")
    assert meter.joules() == pytest.approx(31.5 + 2 * (31.5 + 10.5) / 2)


def rapl(root: Path, energy: int) -> Path:
    zone = "class/powercap/intel-rapl:0"
    lay(root, {f"{zone}/name": "package-0", f"{zone}/max_energy_range_uj": "9999999", f"{zone}/energy_uj": str(energy)})
    return lay(root, {f"{zone}:0/name": "core", f"{zone}:0/energy_uj": "1", f"{zone}:0/max_energy_range_uj": "9"})


def test_counters_wrap_around_and_parts_of_a_package_do_not_count_twice(tmp_path: Path) -> None:
    (meter,) = find_meters(rapl(tmp_path, 9_000_000)).found
    assert meter.name == "RAPL (package-0)"
    start = meter.joules()
    rapl(tmp_path, 1_000_000)
    assert meter.joules() - start == pytest.approx(2.0)


def test_energy_is_absent_where_nothing_tells_it(tmp_path: Path) -> None:
    meters = find_meters(tmp_path)
    assert meters.found == ()
    assert any("RAPL" in reason for reason in meters.missing)
    with metering(meters.found) as measured:
        pass
    assert measured.result is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_counter_that_may_not_be_read_is_said(tmp_path: Path) -> None:
    rapl(tmp_path, 5)
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").chmod(0)
    assert any("root alone" in reason for reason in find_meters(tmp_path).missing)


def test_a_meter_that_fails_on_the_way_gives_no_energy(tmp_path: Path) -> None:
    (meter,) = find_meters(rapl(tmp_path, 5)).found
    with metering([meter], rate_hz=200) as measured:
        (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").unlink()
    assert measured.result is None
    assert "energy_uj" in str(measured.failure)


def test_heat_clocks_and_throttling(tmp_path: Path) -> None:
    jetson_trees.orin_nano(tmp_path)
    assert temperatures_c(tmp_path) == {"cpu-thermal": 48.531, "gpu-thermal": 47.25}
    assert clocks_mhz(tmp_path) == {"cpu": 1510.4, "17000000.gpu": 306.0}
    assert throttle_events(tmp_path) == 2
    assert (temperatures_c(tmp_path / "none"), throttle_events(tmp_path / "none")) == ({}, None)
