"""Two GeoTIFFs and a label raster, four commands, a map: docs/training.md as a test, with a tiny network."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("pydantic")
pytest.importorskip("jsonschema")

from test_bundle_schema import errors

import mmedge.edge.training.config  # noqa: F401 - not where torch is missing
from mmedge.bundle import open_bundle
from mmedge.cli.app import run

ROOT = Path(__file__).parents[2]
SOURCES = ["--source", "optical=optical.tif", "--source", "sar=sar.tif"]
# Files of the docs' example -> ours.
FILES = {"s2.tif": "optical.tif", "s1.tif": "sar.tif", "classes.tif": "landcover.tif", "RUN.yaml": "run.yaml"}
# What makes it quick: a network of 2,600 parameters, six steps, small windows.
TINY = {
    r'method: "\w+"': 'method: "dropout"',
    r"encoder_options: {}": 'encoder_options: {"widths": [4, 8], "width": 4, "depth": 1, "kernel": 3}',
    r"window_px: 64": "window_px: 16",
    r"block_px: null": "block_px: 16",
    r"steps: 600": "steps: 6",
    r"check_every: 50": "check_every: 3",
    r"  batch: 8": "  batch: 2",
    r"validate_windows: 64": "validate_windows: 4",
}


def crop(source: Path, target: Path, window: Window) -> None:
    with rasterio.open(source) as src:
        data = src.read(window=window)
        profile = {**src.profile, "height": window.height, "width": window.width}
        profile |= {"transform": src.window_transform(window), "blockxsize": 64, "blockysize": 64}
        with rasterio.open(target, "w", **profile) as out:
            out.write(data)
            out.descriptions, out.scales, out.offsets = src.descriptions, src.scales, src.offsets
            if src.colorinterp[0].name == "palette":
                out.write_colormap(1, src.colormap(1))
            out.update_tags(**src.tags())


def commands() -> list[list[str]]:
    """The four commands of docs/training.md, on our files: arguments of `mmedge`."""
    text = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    lines = re.findall(r"^    mmedge (.+)$", text, re.MULTILINE)[:4]
    found = [shlex.split(re.sub("|".join(FILES), lambda m: FILES[m[0]], line)) for line in lines]
    assert [arguments[0] for arguments in found] == ["train", "train", "evaluate", "infer"]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the four commands of the docs have run; in between somebody edits the run file."""
    template, train, evaluate, infer = commands()
    assert template[-2:] == [">", "run.yaml"]
    where = tmp_path_factory.mktemp("train")
    for name in ("optical", "sar", "landcover"):
        crop(ROOT / f"examples/chile/{name}.tif", where / f"{name}.tif", Window(40, 60, 96, 80))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(where)
        with (where / "printed.yaml").open("w") as file, patch.context() as inner:
            inner.setattr("sys.stdout", file)
            assert run(template[:-2]) == 0
        text = (where / "printed.yaml").read_text()
        for old, new in TINY.items():
            text, times = re.subn(old, new, text)
            assert times == 1, old
        (where / "run.yaml").write_text(text)
        for arguments in (train, evaluate, infer):
            assert run([*arguments, "-q"]) == 0
    return where


def test_the_four_commands_leave_a_map(folder: Path) -> None:
    with rasterio.open(folder / "map.tif") as src, rasterio.open(folder / "optical.tif") as scene:
        assert (src.crs, src.transform, src.shape) == (scene.crs, scene.transform, scene.shape)
        assert (src.read(1) != src.nodata).all()
    assert (folder / "my-model_evaluation.png").stat().st_size > 1000


def test_the_bundle_is_complete_and_valid(folder: Path) -> None:
    bundle = open_bundle(folder / "my-model")
    assert errors(bundle.item) == []
    assert bundle.order == ("optical", "sar")
    assert [c.name for c in bundle.classes][:2] == ["water", "trees"]
    properties = bundle.item["properties"]
    assert set(properties["mmedge:accuracy"]["test"]) == {"optical", "sar", "optical+sar"}
    assert set(properties["mmedge:domain"]) == {"optical", "sar"}
    assert properties["mmedge:cost"]["optical+sar"]["macs_per_px"] > properties["mmedge:cost"]["sar"]["macs_per_px"]
    assert sorted(p.name for p in (folder / "my-model.run").iterdir()) == ["run.yaml", "stage-0"]
    assert (folder / "my-model.run/stage-0/log.csv").read_text().startswith("step,loss,accuracy,iou,selection,")


def test_evaluate_gives_the_scores_that_the_bundle_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    arguments = ["evaluate", "my-model", *SOURCES, "--labels", "landcover.tif", "--eta", "0.5", "--json"]
    assert run([*arguments, "--overwrite"]) == 0
    document = json.loads(capsys.readouterr().out)
    said = open_bundle("my-model").item["properties"]["mmedge:accuracy"]
    assert document["availability"] == said["test"]
    assert document["mean"] == said["test_mean"]
    assert json.loads((folder / "my-model_evaluation.json").read_text()) == document
    assert "| optical+sar |" in (folder / "my-model_evaluation.md").read_text()
    assert run(["evaluate", "my-model", *SOURCES, "--labels", "landcover.tif"]) == 2
    assert "exists already" in capsys.readouterr().err


def test_the_model_maps(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder)
    assert run(["infer", *SOURCES, "-m", "my-model", "-o", "map.tif", "--overwrite", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["strange"]) == {"optical", "sar"}
    with rasterio.open("map.tif") as src:
        assert src.tags()["CLASS_1"] == "water"
        codes = src.read(1)
    assert codes.shape == (80, 96)
    assert set(np.unique(codes)) <= {c.value for c in open_bundle("my-model").classes}
    assert run(["evaluate", "map.tif", "--labels", "landcover.tif", "-q"]) == 0
    assert "pixels" in capsys.readouterr().out


def test_a_map_says_which_recovered_sensors_it_believed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    text = (folder / "run.yaml").read_text().replace('method: "dropout"', 'method: "dymo"').replace("my-model", "dymo")
    (tmp_path / "run.yaml").write_text(text)
    assert run(["train", str(tmp_path / "run.yaml"), "-q"]) == 0
    capsys.readouterr()
    assert open_bundle("dymo").traces == ("optical", "sar", "optical-recovered", "sar-recovered")
    found = {}
    for backend in ("openvino", "onnxruntime", "eager"):
        target = tmp_path / f"{backend}.tif"
        arguments = ["infer", *SOURCES, "--available", "sar", "-m", "dymo", "-o", str(target), "--backend", backend]
        assert run([*arguments, "--json"]) == 0
        shares = json.loads(capsys.readouterr().out)["availability"]
        with rasterio.open(tmp_path / f"{backend}_sensors.tif") as src:
            assert src.tags()["SENSOR_BIT_2"] == "optical-recovered"
            found[backend] = src.read(1)
        seen = {"none": 0, "sar": 2, "sar+optical-recovered": 6}
        assert shares == {k: pytest.approx((found[backend] == seen[k]).mean(), abs=1e-6) for k in shares}
        item = json.loads(target.with_suffix(".json").read_text())
        assert set(item["properties"]["mmedge:sensors_share"]) == set(shares) - {"none"}
    assert (found["openvino"] == found["onnxruntime"]).mean() > 0.99
    assert (found["openvino"] == found["eager"]).mean() > 0.99
    assert run(["infer", *SOURCES, "-m", "dymo", "-o", str(tmp_path / "all.tif"), "-q"]) == 0
    with rasterio.open(tmp_path / "all_sensors.tif") as src:
        assert set(np.unique(src.read(1))) == {3}


def test_an_existing_bundle_is_refused_and_a_changed_run_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    before = (folder / "my-model/model.json").read_bytes()
    assert run(["train", "run.yaml"]) == 2
    assert "`my-model` exists already" in capsys.readouterr().err
    (folder / "other.yaml").write_text((folder / "run.yaml").read_text().replace("seed: 0", "seed: 1", 1))
    assert run(["train", "other.yaml", "--overwrite"]) == 2
    assert "state of a run with other settings" in capsys.readouterr().err
    with rasterio.open(folder / "landcover.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as labels:
        codes = labels.read(1)
        labels.write(np.roll(codes, 5, 0), 1)
    assert run(["train", "run.yaml", "--overwrite"]) == 2
    assert "other settings or data" in capsys.readouterr().err
    with rasterio.open(folder / "landcover.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as labels:
        labels.write(codes, 1)
    assert (folder / "my-model/model.json").read_bytes() == before


def test_a_run_file_can_be_printed_complete(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    short = {"scenes": [{"sources": {"sar": ["sar.tif"]}, "labels": "landcover.tif"}], "window_px": 16, "name": "short"}
    (tmp_path / "short.yaml").write_text(json.dumps(short))
    assert run(["train", str(tmp_path / "short.yaml"), "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert "window_px: 16" in printed
    assert "short" in printed
    assert "water" in printed
    (tmp_path / "long.yaml").write_text(printed)
    assert run(["train", str(tmp_path / "long.yaml"), "--print-config"]) == 0
    assert capsys.readouterr().out == printed
    assert run(["train", str(tmp_path / "long.yaml"), "--print-config", "--set", "name=other"]) == 0
    assert capsys.readouterr().out == printed.replace("short", "other")
    assert run(["train", "--print-config", "--set", "name=other"]) == 2


def test_a_folder_that_is_no_bundle_is_never_replaced(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("precious")
    text = (folder / "run.yaml").read_text()
    (tmp_path / "run.yaml").write_text(text.replace("out: null", f"out: {mine}"))
    assert run(["train", str(tmp_path / "run.yaml"), "--overwrite"]) == 2
    assert "is no bundle, so it is not replaced" in capsys.readouterr().err
    assert (mine / "thesis.txt").read_text() == "precious"
    (tmp_path / "run.yaml").write_text(text.replace("license_file: null", "license_file: nowhere"))
    assert run(["train", str(tmp_path / "run.yaml"), "--overwrite"]) == 2
    assert "no such file: `nowhere`" in capsys.readouterr().err


def test_a_dry_run_of_evaluate_says_what_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    arguments = ["evaluate", "my-model", *SOURCES, "--labels", "landcover.tif", "-o", "new.json", "--dry-run", "--json"]
    assert run(arguments) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["writes"] == ["new.md", "new.png", "new.json"]
    assert set(plan["reads"]) >= {"my-model", "landcover.tif", "optical.tif", "sar.tif"}
    assert not (folder / "new.json").exists()


def test_a_dry_run_touches_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    settings = ["--set", "name=another", "--set", "network.method=mars"]
    assert run(["train", "run.yaml", *settings, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["sensors"] == ["optical", "sar"]
    assert plan["network"] == "mars on unet"
    assert plan["writes"] == ["another", "another.run"]
    assert not (folder / "another").exists()
    assert not (folder / "another.run").exists()


def test_a_mistake_in_the_run_file(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.yaml"
    path.write_text((folder / "run.yaml").read_text().replace("learning_rate", "lerning_rate"))
    assert run(["train", str(path)]) == 2
    err = capsys.readouterr().err
    assert "unknown key `fit.lerning_rate`" in err
    assert "did you mean `learning_rate`" in err
    assert run(["train"]) == 2
