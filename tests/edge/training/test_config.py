"""The run file: what is printed is what is read, and a mistake is named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("pydantic")
pytest.importorskip("torch")

from mmedge.edge.training.config import RunConfig, print_config, read_config
from mmedge.errors import UsageError

FULL: dict[str, Any] = {
    "name": "two-rivers",
    "scenes": [
        {"scene": "a.tif", "labels": "a_lulc.tif", "part": "test"},
        {"sources": {"optical": ["s2.tif"], "sar": ["s1.tif"]}, "labels": "samples.gpkg", "field": "class"},
    ],
    "sensors": [{"name": "sar", "bands": ["VV", "VH"], "unit": "dB", "gsd_m": 10}],
    "classes": [{"value": 1, "name": "water: deep # dark", "color": "1f78b4"}],
    "network": {"method": "mars", "options": {"experts": 4}, "encoder_options": {"widths": [8, 16]}},
}


def write(folder: Path, document: Any) -> Path:
    path = folder / "run.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document), encoding="utf-8")
    return path


@pytest.mark.parametrize("document", [FULL, {"scenes": [{"scene": "a.tif", "labels": "l.tif"}]}])
def test_what_is_printed_is_what_is_read(document: dict[str, Any], tmp_path: Path) -> None:
    config = RunConfig.model_validate(document)
    assert read_config(write(tmp_path, print_config(config))) == config


def test_every_key_is_printed_and_nearly_every_one_explained() -> None:
    text = print_config(RunConfig.model_validate(FULL))
    for section in (RunConfig, *(i.annotation for i in RunConfig.model_fields.values())):
        for key in getattr(section, "model_fields", {}):
            assert re.search(rf"^[ -]*{key}:", text, re.M), key
    lines = text.splitlines()
    assert sum("#" in line for line in lines) > 0.7 * len(lines)


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ({"scens": []}, "unknown key `scens`", "did you mean `scenes`"),
        ({"fit": {"lerning_rate": 1}}, "unknown key `fit.lerning_rate`", "did you mean `learning_rate`"),
        ({"missing": {"zzz": 1}}, "unknown key `missing.zzz`", "known here: sampler, eta, holes"),
        ({"fit": {"steps": 0}}, "`fit.steps`: Input should be greater than or equal to 1", "--print-config"),
        ({"missing": {"sampler": "random"}}, "'uniform', 'fixed', 'guided' or 'realistic'", "--print-config"),
        ({"scenes": [{"labels": "a"}]}, "give either `scene` or `sources`", "--print-config"),
        ({"name": "../evil"}, "`name`", "--print-config"),
    ],
)
def test_a_mistake_is_named(change: dict[str, Any], message: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        read_config(write(tmp_path, FULL | change))
    assert hint in caught.value.hint
    assert caught.value.exit_code == 2


def test_keys_are_set_anew(tmp_path: Path) -> None:
    path = write(tmp_path, FULL)
    settings = ["network.method=dymo", "seed=3", "split.shares=[0.5, 0.25, 0.25]", "scenes.1.part=train", "out=null"]
    config = read_config(path, settings)
    assert (config.network.method, config.seed, config.split.shares) == ("dymo", 3, (0.5, 0.25, 0.25))
    assert [s.part for s in config.scenes] == ["test", "train"]
    assert config.network.options == read_config(path).network.options


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("network.method", "not KEY=VALUE"),
        ("name.more=1", "has no `name.more`"),
        ("scenes.7.part=test", "has no `scenes.7.part`"),
        ("scenes.first.part=test", "has no `scenes.first.part`"),
        ("seed=[1", "the value is not YAML"),
        ("network.methd=dymo", "unknown key `network.methd`"),
        ("fit.steps=many", "`fit.steps`"),
    ],
)
def test_a_setting_that_is_a_mistake_is_named(setting: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        read_config(write(tmp_path, FULL), [setting])


def test_an_unknown_key_in_a_list_is_named(tmp_path: Path) -> None:
    scene = FULL["scenes"][0] | {"label": "x"}
    with pytest.raises(UsageError, match=r"unknown key `scenes\.0\.label`") as caught:
        read_config(write(tmp_path, FULL | {"scenes": [scene]}))
    assert "did you mean `labels`" in caught.value.hint


@pytest.mark.parametrize("text", ["a: [", "- 1", ""])
def test_what_is_no_run_file(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        read_config(write(tmp_path, text))
    with pytest.raises(UsageError, match="cannot read"):
        read_config(tmp_path / "none.yaml")
