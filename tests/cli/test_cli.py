"""The command line as people meet it: exit codes, one clear line and a hint, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio

from mmedge import __version__
from mmedge.cli.app import app, run

HEAVY = ("numpy", "rasterio", "openvino", "torch", "onnx", "PIL")
VERBS = sorted(command.name or "" for command in app.registered_commands)


def spawn(*args: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "from mmedge.cli.app import main; main()", *args],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from mmedge.cli.app import run; code = run(['--help']);"
        f"print([m for m in {HEAVY} if m in sys.modules], code, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[] 0"
    assert "mmedge infer scene.tif --available sar,optical" in done.stdout


def test_the_package_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "mmedge", "--version"], capture_output=True, text=True, check=True)
    assert __version__ in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_an_example_and_a_docs_page(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--help"]) == 0
    assert f"Example: mmedge {verb}" in capsys.readouterr().out
    assert (Path(__file__).parents[2] / "docs" / "cli" / f"{verb}.md").is_file()


def test_bundle_create_has_help_an_example_and_a_docs_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bundle", "create", "--help"]) == 0
    assert "Example: mmedge bundle create" in capsys.readouterr().out
    assert (Path(__file__).parents[2] / "docs" / "cli" / "bundle.md").is_file()


def test_infer_writes_the_map_here_and_prints_its_name(
    chile: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["infer", str(chile / "scene.tif"), "-m", str(small), "--available", "sar,optical"]) == 0
    out, err = capsys.readouterr()
    assert out == "scene_map.tif\n"
    assert "100.0% optical+sar" in err
    names = ["scene_map.json", "scene_map.png", "scene_map.tif", "scene_map_confidence.tif", "scene_map_sensors.tif"]
    assert files(tmp_path) == names


def test_json_is_one_document_on_stdout(
    chile: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["infer", str(chile / "scene.tif"), "-m", str(small), "-o", str(tmp_path / "m.tif"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "mmedge.infer/1"
    assert document["mapped"] == document["pixels"] == 224 * 224
    assert document["acquired"] == {"optical": None, "sar": "2020-04-11", "elevation": None}
    assert run(["info", str(chile / "scene.tif"), "--json"]) == 0
    sensors = json.loads(capsys.readouterr().out)["sensors"]
    assert sensors["sar"]["acquired"] == "2020-04-11"
    assert sensors["optical"]["valid_share"] == 1.0
    assert sensors["optical"]["lost_share"] == {}


def test_a_mask_a_failure_and_a_filter_are_in_the_record_and_in_the_map(
    chile: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A raster of clouds over 40 of 224 rows, dead lines and a speckle filter, from the command line to the item."""
    with rasterio.open(chile / "scene.tif") as src:
        profile = {**src.profile, "count": 1, "dtype": "uint8", "nodata": None, "predictor": 1}
    with rasterio.open(tmp_path / "clouds.tif", "w", **profile) as out:
        out.write((np.indices((224, 224))[0] < 40).astype(np.uint8), 1)
    dead = tmp_path / "dead.tif"
    simulate = ["simulate-failure", str(chile / "scene.tif"), "-o", str(dead), "--sensor", "optical"]
    assert run([*simulate, "--cause", "dead_line", "--fraction", "0.1", "--seed", "2"]) == 0
    asked = ["infer", str(dead), "-m", str(small), "-o", str(tmp_path / "m.tif"), "--json", "-q"]
    capsys.readouterr()
    assert run([*asked, "--mask", f"optical={tmp_path}/clouds.tif", "--screen", "--speckle", "lee"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["lost"]["optical"]["mask"] == round(40 / 224, 6)
    assert 0.05 < record["lost"]["optical"]["dead_line"] < 0.15
    assert record["lost"]["sar"] == record["lost"]["elevation"] == {}
    assert 1 - sum(v for k, v in record["availability"].items() if "optical" in k) == pytest.approx(
        np.array([record["lost"]["optical"][k] for k in ("mask", "dead_line")]).sum(), abs=0.04
    )
    assert record["notes"] == ["speckle filtered: Lee, 5 x 5 pixels, 4.4 looks"]
    assert [i["name"] for i in record["inputs"]] == ["dead.tif", "clouds.tif"]
    item = json.loads((tmp_path / "m.json").read_text())["properties"]
    assert item["mmedge:sensors"]["optical"] == {"acquired": None, "lost_share": record["lost"]["optical"]}
    assert item["mmedge:sensors"]["sar"]["acquired"] == "2020-04-11"
    assert item["mmedge:assumptions"] == record["notes"]
    assert run(["info", str(dead), "--failures", "--json", "--mask", f"sar={tmp_path}/clouds.tif"]) == 0
    sensors = json.loads(capsys.readouterr().out)["sensors"]
    assert 0.05 < sensors["optical"]["lost_share"]["dead_line"] < 0.15
    assert sensors["sar"]["lost_share"] == {"mask": round(40 / 224, 5)}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["infer", "nowhere.tif"], 2, "no such file: `nowhere.tif`"),
        (["infer", "{chile}/README.md"], 2, "is not a raster"),
        (["infer", "{chile}/landcover.tif"], 2, "holds none of optical"),
        (
            ["infer", "{scene}", "--available", "thermal"],
            2,
            "the scene has no such sensor, it has optical, sar, elevation",
        ),
        (["infer", "{scene}", "-m", "nomodel"], 2, "no model `nomodel`"),
        (["infer", "{scene}", "--backend", "magic"], 2, "no backend `magic`"),
        (["infer", "{scene}", "--precision", "fp1"], 2, "no precision `fp1`"),
        (["infer", "{scene}", "--precision", "int8"], 2, "has no int8 graphs"),
        (["infer", "{scene}", "--bbox", "1,2,3"], 2, "is not xmin,ymin,xmax,ymax"),
        (["infer", "{scene}", "--bbox", "0,0,1,1"], 2, "does not touch the scene"),
        (["infer", "{scene}", "--bbox", "nan,1,2,3"], 2, "is not finite"),
        (["infer", "{scene}", "--scale", "optical=nan"], 2, "is not SCALE[,OFFSET]"),
        (["infer", "{scene}", "--scale", "optical=1e-4,-0.1,7"], 2, "is not SCALE[,OFFSET]"),
        (["infer", "{scene}", "--source", "optical"], 2, "is not SENSOR=VALUE"),
        (["infer", "{scene}", "--speckle", "median"], 2, "is not lee[,SIZE[,LOOKS]]"),
        (["infer", "{scene}", "--speckle", "lee,4"], 2, "an odd number of pixels, not 4"),
        (["infer", "{scene}", "-o", "nofolder/map.tif"], 2, "`nofolder` does not exist"),
        (["infer", "{scene}", "-o", "."], 2, "`.` is a folder"),
        (["evaluate", "{scene}", "--labels", "{chile}/landcover.tif"], 2, "is no map of classes"),
        (["infer", "{scene}", "-o", "{chile}/scene.tif", "--overwrite"], 2, "is an input of this run"),
        (["infer", "{scene}", "--datetime", "yesterday"], 2, "is not a date"),
        (["infer", "{scene}", "--frobnicate"], 2, "No such option"),
        (["frobnicate"], 2, "No such command"),
        (["info"], 2, "nothing to describe"),
        (["stack"], 2, "no scene given"),
        (["stack", "--source", "sar={chile}/sar.tif", "-o", "no/scene.tif"], 2, "`no` does not exist"),
    ],
)
def test_mistakes_give_one_line_a_hint_and_the_right_exit_code(
    arguments: list[str],
    code: int,
    said: str,
    chile: Path,
    small: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMEDGE_MODEL", str(small))
    filled = [a.format(chile=chile, scene=chile / "scene.tif") for a in arguments]
    assert run(filled) == code
    out, err = capsys.readouterr()
    assert out == ""
    error, blank, hint = err.strip().split("\n")[-3:]
    assert error.startswith("error: ")
    assert said in error
    assert blank == ""
    assert hint.startswith("hint: ")
    assert files(tmp_path) == []


def test_an_existing_output_is_refused_before_any_work(
    chile: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "map_confidence.tif"
    old.write_text("mine")
    arguments = ["infer", str(chile / "scene.tif"), "-m", str(small), "-o", str(tmp_path / "map.tif")]
    assert run(arguments) == 2
    assert "exists already" in capsys.readouterr().err
    assert files(tmp_path) == ["map_confidence.tif"]
    assert old.read_text() == "mine"
    assert run([*arguments, "--overwrite"]) == 0
    with rasterio.open(old) as src:
        assert src.count == 1


def test_a_dry_run_says_what_it_would_do_and_touches_nothing(
    chile: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["infer", str(chile / "scene.tif"), "-m", str(small), "-o", str(tmp_path / "map.tif"), "--dry-run"]
    assert run([*arguments, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["writes"][-1] == str(tmp_path / "map.tif")
    assert files(tmp_path) == []
    (tmp_path / "map.tif").write_text("mine")
    assert run(arguments) == 2


def test_strict_makes_a_warning_an_exit_code(chile: Path, small: Path, tmp_path: Path) -> None:
    with rasterio.open(chile / "scene.tif") as src:
        data = src.read()
        data[12:14] = np.nan
        with rasterio.open(tmp_path / "scene.tif", "w", **src.profile) as out:
            out.write(data)
            out.descriptions = src.descriptions
    arguments = ["infer", str(tmp_path / "scene.tif"), "-m", str(small), "-o", str(tmp_path / "map.tif"), "-q"]
    assert run(arguments) == 0
    assert run([*arguments, "--overwrite", "--strict"]) == 1


def large_scene(chile: Path, target: Path, times: int) -> Path:
    """The example, mirrored `times` x `times`."""
    with rasterio.open(chile / "scene.tif") as src:
        tile = src.read()
        pair = np.concatenate([tile, tile[:, ::-1]], axis=1)
        block = np.concatenate([pair, pair[:, :, ::-1]], axis=2)
        data = np.tile(block, (1, times // 2, times // 2))
        profile = {**src.profile, "height": data.shape[1], "width": data.shape[2], "compress": None, "predictor": 1}
        with rasterio.open(target, "w", **profile) as out:
            out.write(data)
            out.descriptions = src.descriptions
    return target


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_run_leaves_no_map_and_the_next_one_cleans_up(
    sent: signal.Signals, code: int, chile: Path, small: Path, tmp_path: Path
) -> None:
    scene = large_scene(chile, tmp_path / "scene.tif", 12)
    arguments = ("infer", str(scene), "-m", str(small), "-o", "map.tif", "--batch", "1", "--threads", "1", "-q")
    process = spawn(*arguments, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("*.part")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    left = set(files(tmp_path)) - {"scene.tif"}
    if sent == signal.SIGKILL:
        assert left
        assert all(name.endswith(".part") for name in left)
        assert run(["infer", str(chile / "scene.tif"), "-m", str(small), "-o", str(tmp_path / "map.tif")]) == 0
        assert not list(tmp_path.glob("*.part"))
    else:
        assert "stopped by" in err
        assert left == set()


def test_a_bug_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("mmedge.edge.device.cpu_name", lambda: 1 / 0)
    assert run(["doctor"]) == 70
    assert "a bug in mmedge: ZeroDivisionError" in capsys.readouterr().err


def test_info_describes_a_bundle(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", str(small), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["sensors"]["sar"] == {"bands": ["VV", "VH"], "unit": "dB", "gsd_m": 10.0}
    assert document["classes"]["1"] == "water"


def test_doctor_names_the_fix_for_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    packages = json.loads(capsys.readouterr().out)["packages"]
    assert packages["openvino"]["version"]
    assert "pip install" in packages["tensorrt"]["fix"]


def test_a_progress_bar_only_where_somebody_looks(chile: Path, small: Path, tmp_path: Path) -> None:
    process = spawn("infer", str(chile / "scene.tif"), "-m", str(small), "-o", "map.tif", cwd=tmp_path)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out == "map.tif\n"
    assert err.count("\n") == 1
    assert "\x1b" not in err
