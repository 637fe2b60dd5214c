"""Engines are a cache: keyed on what makes them invalid, refused where they are foreign, damaged or never compared."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, fields, replace
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper
from tensorrt_names import Recorder

from mmedge.bundle import Bundle, checksum, open_bundle
from mmedge.cli.app import run
from mmedge.edge.device import gpu
from mmedge.edge.engine.key import (
    BuildOptions,
    EngineKey,
    EngineMismatchError,
    cache_folder,
    engine_path,
    engines_for,
    find_engine,
    read_engine,
    write_engine,
)
from mmedge.edge.runtime.open import open_runtime
from mmedge.edge.runtime.session import GraphKey
from mmedge.edge.runtime.tensorrt import TensorRtRuntime
from mmedge.errors import MachineError
from mmedge.modality import Availability

HERE = {"backend": "tensorrt", "version": "10.3.0", "device": "Orin sm87"}


@pytest.fixture(scope="module")
def bundle(small: Path) -> Bundle:
    return open_bundle(small)


@pytest.fixture
def graph(bundle: Bundle) -> GraphKey:
    return GraphKey(Availability.of(["sar"], bundle.order), False)


@pytest.fixture
def key(bundle: Bundle, graph: GraphKey) -> EngineKey:
    return EngineKey.of(bundle, graph, precision="fp16", options=BuildOptions(), **HERE)


def test_every_field_of_the_key_changes_the_file(key: EngineKey, tmp_path: Path) -> None:
    digests = {key.digest}
    for field in fields(EngineKey):
        value = getattr(key, field.name)
        other = (1, 2, 3) if field.name == "batch" else f"{value}x" if isinstance(value, str) else value + 1
        digests.add(replace(key, **{field.name: other}).digest)
    assert len(digests) == 1 + len(fields(EngineKey))
    assert engine_path(tmp_path, key).name == f"sar.fp16.{key.digest}.engine"


def test_weights_and_graphs_are_in_the_key(key: EngineKey, small: Path, graph: GraphKey, tmp_path: Path) -> None:
    shutil.copytree(small, tmp_path / "other")
    item = json.loads((tmp_path / "other/model.json").read_text())
    path = tmp_path / "other/graphs/sar.fp32.onnx"
    model = onnx.load(path)
    weight = next(i for i in model.graph.initializer if i.name == "sar_w")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 2, "sar_w"))
    onnx.save(model, path)
    item["assets"]["graphs/sar.fp32.onnx"]["file:checksum"] = checksum(path)
    (tmp_path / "other/model.json").write_text(json.dumps(item))
    other = EngineKey.of(open_bundle(tmp_path / "other"), graph, precision="fp16", options=BuildOptions(), **HERE)
    assert other.graph_sha256 != key.graph_sha256
    assert other.digest != key.digest


def test_what_was_written_is_read(key: EngineKey, tmp_path: Path) -> None:
    path = write_engine(tmp_path, key, b"plan", {"accepted": True})
    assert read_engine(path, key)[0] == b"plan"
    assert {p.name for p in tmp_path.iterdir()} == {path.name, path.with_suffix(".json").name}


@pytest.mark.parametrize(
    ("field", "value"),
    [("version", "10.13.3.9"), ("device", "Thor sm110"), ("weights_sha256", "0"), ("backend", "rtx")],
)
def test_a_foreign_engine_is_refused_and_the_difference_named(
    key: EngineKey, tmp_path: Path, field: str, value: str
) -> None:
    path = write_engine(tmp_path, key, b"plan", {"accepted": True})
    with pytest.raises(EngineMismatchError, match=f"{field} .*, here {value}") as err:
        read_engine(path, replace(key, **{field: value}))
    assert "mmedge compile" in err.value.hint
    assert err.value.exit_code == 3


def test_damage_is_found(key: EngineKey, tmp_path: Path) -> None:
    path = write_engine(tmp_path, key, b"plan", {"accepted": True})
    path.write_bytes(b"plam")
    with pytest.raises(MachineError, match="damaged"):
        read_engine(path, key)
    path.with_suffix(".json").write_text("{")
    with pytest.raises(MachineError, match="cannot be read"):
        read_engine(path, key)


def test_the_engine_is_found_whatever_its_options(bundle: Bundle, graph: GraphKey, tmp_path: Path) -> None:
    options = BuildOptions(batch=(1, 4, 16), workspace_mib=99, optimization=5)
    key = EngineKey.of(bundle, graph, precision="fp16", options=options, **HERE)
    with pytest.raises(MachineError, match="no fp16 engine for `sar`"):
        find_engine(tmp_path, bundle, graph, precision="fp16", batch=8, **HERE)
    path = write_engine(tmp_path, key, b"plan", {"accepted": True})
    assert find_engine(tmp_path, bundle, graph, precision="fp16", batch=8, **HERE) == (path, key)
    moved = {**HERE, "device": "Thor sm110"}
    found, wanted = find_engine(tmp_path, bundle, graph, precision="fp16", batch=8, **moved)
    with pytest.raises(EngineMismatchError, match="Orin sm87, here Thor sm110"):
        read_engine(found, wanted)


@pytest.mark.parametrize("accepted", [True, False])
def test_the_runtime_loads_only_what_was_compared(
    bundle: Bundle, graph: GraphKey, key: EngineKey, tmp_path: Path, accepted: bool
) -> None:
    write_engine(tmp_path, key, b"plan", {"accepted": accepted})
    recorder = Recorder("10.3.0")
    wishes = {"backend": "tensorrt", "precision": "fp16", "device": "Orin sm87", "folder": tmp_path}
    runtime = TensorRtRuntime(recorder.module, recorder.cuda, **wishes)
    if accepted:
        runtime.load(bundle, graph, batch=8)
        assert ("Runtime.deserialize_cuda_engine", (b"plan",)) in recorder.calls
        return
    with pytest.raises(MachineError, match="never compared"):
        runtime.load(bundle, graph, batch=8)
    assert recorder.count("Runtime.deserialize_cuda_engine") == 0


def test_batches_are_ordered() -> None:
    with pytest.raises(ValueError, match="least <= usual"):
        BuildOptions(batch=(4, 2, 8))


def test_the_cache_is_the_user_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MMEDGE_ENGINES", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "mmedge" / "engines"
    monkeypatch.setenv("MMEDGE_ENGINES", str(tmp_path / "there"))
    assert cache_folder() == tmp_path / "there"
    assert cache_folder(tmp_path / "chosen") == tmp_path / "chosen"


def test_engines_of_this_gpu_are_known(key: EngineKey, tmp_path: Path) -> None:
    write_engine(tmp_path, key, b"plan", {"accepted": True})
    assert engines_for(tmp_path, "fp16", "Orin sm87")
    assert not engines_for(tmp_path, "fp16", "Thor sm110")
    assert not engines_for(tmp_path, "int8", "Orin sm87")
    assert not engines_for(tmp_path / "nowhere", "fp16", "Orin sm87")


def test_the_key_is_json(key: EngineKey) -> None:
    assert json.loads(json.dumps(asdict(key)))["batch"] == [1, 8, 8]


@pytest.mark.skipif(gpu() is not None, reason="this machine has a GPU")
def test_without_a_gpu_tensorrt_is_not_even_imported(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compile", str(small), "--cache", str(tmp_path)]) == 3
    assert "mmedge doctor" in capsys.readouterr().err
    for wrong in (["--backend", "magic"], ["--precision", "fp1"]):
        assert run(["compile", str(small), *wrong]) == run(["compile", str(small), *wrong, "--dry-run"]) == 2
    with pytest.raises(MachineError, match="needs an NVIDIA GPU"):
        open_runtime("tensorrt", precision="fp16", threads=1)
    assert run(["compile", str(small), "--batch", "8,4,2"]) == 2
    assert run(["compile", str(small), "--available", "sar", "--dry-run"]) == 0
    assert "sar.mixed" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
