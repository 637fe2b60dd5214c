"""Files of three Jetsons, synthetic: laid out as NVIDIA's documents describe them, with made-up readings."""

from __future__ import annotations

from pathlib import Path


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def ina3221(hwmon: str, *rails: tuple[str, int, int]) -> dict[str, str]:
    """Channels (label, mV, mA); channel 7 is the sum of the shunt voltages."""
    files = {f"class/hwmon/{hwmon}/name": "ina3221", f"class/hwmon/{hwmon}/in7_label": "sum of shunt voltages"}
    files[f"class/hwmon/{hwmon}/in7_input"] = "99"
    for n, (label, mv, ma) in enumerate(rails, start=1):
        files |= {f"class/hwmon/{hwmon}/in{n}_label": label, f"class/hwmon/{hwmon}/in{n}_input": str(mv)}
        files[f"class/hwmon/{hwmon}/curr{n}_input"] = str(ma)
    return files


def orin_nano(root: Path) -> Path:
    rails = (("VDD_IN", 5000, 1200), ("VDD_CPU_GPU_CV", 5000, 400), ("VDD_SOC", 5000, 300))
    return lay(root, {"class/hwmon/hwmon0/name": "cpu_thermal", **ina3221("hwmon1", *rails), **HEAT})


def agx_orin(root: Path) -> Path:
    rails = (("VDD_GPU_SOC", 19000, 300), ("VDD_CPU_CV", 19000, 100), ("VIN_SYS_5V0", 5000, 800))
    return lay(root, {**ina3221("hwmon3", *rails), **ina3221("hwmon4", ("NC", 1, 1), ("NC", 1, 1)), **HEAT})


def thor(root: Path) -> Path:
    files = {"name": "ina238", "in1_label": "VIN", "power1_input": "31500000"}
    return lay(root, {f"class/hwmon/hwmon2/{name}": text for name, text in files.items()} | HEAT)


HEAT = {
    "class/thermal/thermal_zone0/type": "cpu-thermal",
    "class/thermal/thermal_zone0/temp": "48531",
    "class/thermal/thermal_zone1/type": "gpu-thermal",
    "class/thermal/thermal_zone1/temp": "47250",
    "class/hwmon/hwmon9/oc1_event_cnt": "0",
    "class/hwmon/hwmon9/oc3_event_cnt": "2",
    "class/devfreq/17000000.gpu/cur_freq": "306000000",
    "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "729600",
    "devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "1510400",
}
