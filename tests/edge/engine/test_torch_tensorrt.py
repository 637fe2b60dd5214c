"""torch-TensorRT without a GPU: names of 2.8 to 2.14, and all of the path but TensorRT, executed by PyTorch.

The exported programs are real and are compared with the network; a recorder stands for torch-TensorRT's four functions.
"""

from __future__ import annotations

import ast
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from networks import CHANNELS, SIDE, labels, small, windows  # noqa: E402
from torch_tensorrt_names import VERSIONS, Recorder, api  # noqa: E402

from mmedge.bundle import Bundle, open_bundle  # noqa: E402
from mmedge.cli.app import run  # noqa: E402
from mmedge.edge.compile import CompileRequest, compile_bundle  # noqa: E402
from mmedge.edge.device import gpu  # noqa: E402
from mmedge.edge.engine import dynamo  # noqa: E402
from mmedge.edge.engine.build import BuildError  # noqa: E402
from mmedge.edge.engine.compilers import TorchTensorRtCompiler  # noqa: E402
from mmedge.edge.engine.key import BuildOptions, EngineMismatchError, engines_for  # noqa: E402
from mmedge.edge.engine.program import check_products, export_network, product_types  # noqa: E402
from mmedge.edge.parity import real_batches  # noqa: E402
from mmedge.edge.runtime.open import choose_backend, open_runtime  # noqa: E402
from mmedge.edge.runtime.session import GraphKey, TracingSession  # noqa: E402
from mmedge.edge.runtime.torch_tensorrt import TorchTensorRtRuntime, TorchTensorRtSession  # noqa: E402
from mmedge.errors import BundleError, MachineError, MissingExtraError, UsageError  # noqa: E402
from mmedge.geo_io.scene import open_scene  # noqa: E402
from mmedge.modality import Availability  # noqa: E402

SOURCES = [Path(dynamo.__file__), Path(dynamo.__file__).parents[1] / "runtime" / "torch_tensorrt.py"]
ORDER = tuple(CHANNELS)
CPU = torch.device("cpu")
OPTIONS = BuildOptions(batch=(1, 2, 3), workspace_mib=64, optimization=2, version_compatible=True)
# Method, encoder, mixed, precision.
PROGRAMS = [("mamol", "unet", True, "fp32"), ("mars", "unet", False, "fp16"), ("dymo", "vit", True, "fp16")]


def calls_of_ttrt() -> set[str]:
    """Names of torch_tensorrt that the sources use; a keyword argument as `save(retrace)`."""
    found: set[str] = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text().replace("self._ttrt", "ttrt"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("ttrt."):
                found.add(ast.unparse(node).removeprefix("ttrt."))
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("ttrt."):
                name = ast.unparse(node.func).removeprefix("ttrt.")
                found |= {f"{name}({k.arg})" for k in node.keywords if k.arg}
    return found - {"dynamo"}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_and_argument_exists_in_every_version(version: str) -> None:
    used = calls_of_ttrt()
    assert {"dynamo.compile", "dynamo.compile(arg_inputs)", "save(retrace)", "load", "Input(opt_shape)"} <= used
    chosen = dynamo.settings(Recorder(version).module.dynamo.compile, OPTIONS, Path("timing.cache"))
    assert not (used | {f"dynamo.compile({name})" for name in chosen}) - api(version)
    assert {dynamo.IN_TENSORRT, dynamo.IN_TORCH} <= api(version)


def test_precision_lies_in_the_dtypes_in_every_version() -> None:
    """2.13 removed both arguments; before, the engine must be told to obey the dtypes, and the set stays at fp32."""
    for version in VERSIONS:
        chosen = dynamo.settings(Recorder(version).module.dynamo.compile, OPTIONS, Path("timing.cache"))
        old = VERSIONS[version] < VERSIONS["2.13.0"]
        assert chosen.get("use_explicit_typing", False) is old
        assert ("dynamo.compile(enabled_precisions)" in api(version)) is old
        assert "enabled_precisions" not in chosen
        assert chosen["workspace_size"] == 64 << 20


def shapes(sensors: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    pairs = [((m, (1, CHANNELS[m], SIDE, SIDE)), (f"{m}_valid", (1, 1, SIDE, SIDE))) for m in sensors]
    return dict(item for pair in pairs for item in pair)


@pytest.mark.parametrize(("method", "encoder", "mixed", "precision"), PROGRAMS)
def test_programs_give_what_the_network_gives(method: str, encoder: str, mixed: bool, precision: str) -> None:
    network, sensors = small(method, encoder), ("optical", "sar")
    key = GraphKey(Availability.of(sensors, ORDER), mixed)
    program = export_network(network, key, shapes(sensors), precision, (1, 2, 5))
    check_products(product_types(program), precision, str(key))
    for batch in (1, 4):
        data, valid = windows(sensors, batch=batch)
        if mixed:
            valid["sar"][:, :, :16] = False
        inputs = [x for m in sensors for x in (data[m], valid[m])]
        with torch.no_grad():
            expected = network(data, valid, uniform=not mixed)
            found = program.module()(*inputs)[0]
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, atol=1e-5 if precision == "fp32" else 0.05, rtol=1e-2)


def test_a_saved_program_says_which_sensors_it_recovered(tmp_path: Path) -> None:
    network, sensors = small("dymo"), ("optical", "sar")
    data, valid = windows(sensors)
    network.finish([(*windows(), labels("map"))])
    program = export_network(
        network, GraphKey(Availability.of(sensors, ORDER), False), shapes(sensors), "fp32", (1, 2, 2)
    )
    torch.export.save(program, tmp_path / "dymo.pt2")
    session = TorchTensorRtSession(Recorder("2.8.0").module, tmp_path / "dymo.pt2", list(shapes(sensors)), CPU)
    assert isinstance(session, TracingSession)
    feeds = {m: data[m].numpy() for m in sensors} | {f"{m}_valid": valid[m].numpy() for m in sensors}
    logits, recovered = session.run_traced(feeds)
    expected = network.answers(data, valid, uniform=True)
    np.testing.assert_allclose(logits, expected[0].detach(), atol=1e-5)
    np.testing.assert_array_equal(recovered, expected[1])


def test_a_wrong_precision_is_refused() -> None:
    check_products({"linear:float16": 3}, "fp16", "g")
    for types in ({"linear:float32": 1}, {"linear:float16": 2, "conv2d:float32": 1}, {}):
        with pytest.raises(BundleError, match="asked for in fp16"):
            check_products(types, "fp16", "g")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle("mamol-conv")


@pytest.fixture(scope="module")
def key(bundle: Bundle) -> GraphKey:
    return GraphKey(Availability.of(["sar"], bundle.order), True)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder("2.8.0")
    for module in (made.module, ModuleType("tensorrt")):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    sys.modules["tensorrt"].__version__ = "10.3.0"
    return made


def compiler(recorder: Recorder, folder: Path) -> TorchTensorRtCompiler:
    return TorchTensorRtCompiler(recorder.module, "Orin sm87", folder, CPU)


def request(bundle: Bundle, key: GraphKey, folder: Path, scene: Any, **wishes: Any) -> CompileRequest:
    options = BuildOptions(batch=(1, 2, 2))
    chosen = {"backend": "torch-tensorrt", "precision": "fp32", "keys": [key], "options": options, **wishes}
    return CompileRequest(bundle=bundle, folder=folder, scene=scene, **chosen)


def test_compiled_saved_reloaded_accepted_and_run(
    bundle: Bundle, key: GraphKey, recorder: Recorder, chile: Path, tmp_path: Path
) -> None:
    builder = compiler(recorder, tmp_path)
    said: list[str] = []
    with open_scene(chile / "scene.tif", bundle.modalities) as scene:
        wish = request(bundle, key, tmp_path, scene)
        (made,) = compile_bundle(wish, compiler=builder, say=said.append)
        (again,) = compile_bundle(wish, compiler=builder)
        batch = next(b for b in real_batches(scene, bundle, key.availability, size=2) if b.key == key)
    assert (made.accepted, made.cached, again.cached) == (True, False, True)
    assert made.path.suffix == ".pt2"
    assert (made.facts["in_tensorrt"], made.facts["in_torch"]) == (1, 0)
    assert set(made.facts["products"]) == {"conv2d:float32"}
    assert made.facts["compared"]["agreement"] >= 0.999
    assert len(said) >= 3  # never silent
    assert recorder.count("dynamo.compile") == 1
    version = "2.8.0 torch " + torch.__version__ + " tensorrt 10.3.0"
    assert builder.version == version
    assert engines_for(tmp_path, "fp32", "Orin sm87") == "torch-tensorrt"
    assert choose_backend("fp32", gpu="Orin", torch_uses_it=True, engines="torch-tensorrt").backend == "torch-tensorrt"

    runtime = TorchTensorRtRuntime(recorder.module, precision="fp32", device="Orin sm87", folder=tmp_path, where=CPU)
    session = runtime.load(bundle, key, batch=2)
    reference, _ = open_runtime("eager", precision="fp32", threads=1)
    expected = reference.load(bundle, key, batch=2).run(batch.feeds)
    np.testing.assert_allclose(session.run(batch.feeds), expected, atol=1e-4)
    loads = recorder.count("load")
    with ThreadPoolExecutor(1) as pool:  # another worker has a program of its own
        np.testing.assert_allclose(pool.submit(session.run, batch.feeds).result(), expected, atol=1e-4)
    assert recorder.count("load") == loads + 1

    recorder.module.__version__ = "2.9.0"  # after an update
    with pytest.raises(EngineMismatchError, match=r"version 2\.8\.0 torch .* here 2\.9\.0 torch") as err:
        runtime.load(bundle, key, batch=2)
    assert err.value.exit_code == 3
    recorder.module.__version__ = "2.8.0"
    with pytest.raises(MachineError, match="no fp16 engine"):
        replace_precision(runtime, "fp16").load(bundle, key, batch=2)
    made.path.write_bytes(b"no program")
    with pytest.raises(MachineError, match="damaged"):
        runtime.load(bundle, key, batch=2)
    with pytest.raises(MachineError, match="cannot load"):
        runtime.open_file(made.path, bundle, key)


def replace_precision(runtime: TorchTensorRtRuntime, precision: str) -> TorchTensorRtRuntime:
    return TorchTensorRtRuntime(
        runtime._ttrt, precision=precision, device=runtime.device, folder=runtime._folder, where=CPU
    )


def test_what_cannot_be_compiled_is_said(
    bundle: Bundle, key: GraphKey, recorder: Recorder, chile: Path, tmp_path: Path
) -> None:
    builder = compiler(recorder, tmp_path)
    with open_scene(chile / "scene.tif", bundle.modalities) as scene:
        wish = request(bundle, key, tmp_path, scene)
        recorder.fails = RuntimeError("no converter for aten.wonder")
        with pytest.raises(BuildError, match=r"RuntimeError: no converter for aten\.wonder") as err:
            list(compile_bundle(wish, compiler=builder))
        assert "--backend tensorrt" in err.value.hint
        recorder.fails, recorder.part = None, "_run_on_gpu"
        with pytest.raises(BuildError, match=r"leaves all of `sar\.mixed` to PyTorch"):
            list(compile_bundle(wish, compiler=builder))
        with pytest.raises(UsageError, match="torch-tensorrt builds no int8") as refused:
            list(compile_bundle(replace(wish, precision="int8"), compiler=builder))
        assert refused.value.hint == "--backend tensorrt|tensorrt-rtx"
    with pytest.raises(UsageError, match="nothing to compare"):
        list(compile_bundle(replace(wish, scene=None), compiler=builder))
    assert not list(tmp_path.glob("*.pt2"))


def test_a_bundle_without_a_network_is_refused(recorder: Recorder, small_bundle: Path, tmp_path: Path) -> None:
    bundle = open_bundle(small_bundle)
    with pytest.raises(BundleError, match="no network for PyTorch"):
        compiler(recorder, tmp_path).make(bundle, GraphKey.every(bundle)[0], "fp32", BuildOptions(), print)


@pytest.fixture(scope="module")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from small_bundle import write_bundle

    return write_bundle(tmp_path_factory.mktemp("bundle") / "small")


@pytest.mark.skipif(gpu() is not None, reason="this machine has a GPU")
def test_without_a_gpu_nothing_is_imported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compile", "mamol-conv", "--backend", "torch-tensorrt", "--cache", str(tmp_path)]) == 3
    assert "there is none" in capsys.readouterr().err
    assert run(["compile", "mamol-conv", "--backend", "torch-tensorrt", "--precision", "int8"]) == 2
    with pytest.raises(MachineError, match="needs an NVIDIA GPU"):
        open_runtime("torch-tensorrt", precision="fp16", threads=1)
    assert "torch_tensorrt" not in sys.modules


def test_a_missing_or_broken_installation_is_exit_3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    with pytest.raises((MissingExtraError, MachineError)) as err:
        dynamo.load_torch_tensorrt()
    assert err.value.exit_code == 3
    monkeypatch.delitem(sys.modules, "torch_tensorrt")
    (tmp_path / "torch_tensorrt").mkdir()
    (tmp_path / "torch_tensorrt/__init__.py").write_text("print('trouble')\nraise Exception('no libnvinfer.so.10')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MachineError, match=r"cannot be loaded: no libnvinfer\.so\.10"):
        dynamo.load_torch_tensorrt()
