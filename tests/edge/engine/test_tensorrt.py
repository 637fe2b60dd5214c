"""TensorRT without a GPU: every name exists in 10.3 to 11.4, and the execute path does what it should to a recorder."""

from __future__ import annotations

import ast
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tensorrt_names import VERSIONS, Cuda, Recorder, api

import mmedge.edge
from mmedge.edge.engine.build import build, check_types, engine_types
from mmedge.edge.engine.key import BuildOptions
from mmedge.edge.runtime.session import TracingSession
from mmedge.edge.runtime.tensorrt import CudaError, TensorRtSession

EDGE = Path(mmedge.edge.__file__).parent
SOURCES = [EDGE / "engine" / "build.py", EDGE / "compile.py", EDGE / "runtime" / "tensorrt.py"]
TENSORRT = [v for v in VERSIONS if v != "rtx"]
SHAPES = {"sar": (2, 2, 8, 8), "sar_valid": (2, 1, 8, 8)}


def dotted(node: ast.AST) -> str:
    """`trt.DataType.FLOAT` as a string, empty for anything else."""
    if isinstance(node, ast.Attribute):
        left = dotted(node.value)
        return f"{left}.{node.attr}" if left else ""
    return {"trt": "trt", "_trt": "trt"}.get(node.id, "") if isinstance(node, ast.Name) else ""


def names_in(source: Path) -> set[str]:
    text = source.read_text().replace("self._trt", "trt")
    found = {dotted(node).removeprefix("trt.") for node in ast.walk(ast.parse(text))}
    return {name for name in found if name and not name.startswith("__") and name != "trt"}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_exists_in_every_version(version: str) -> None:
    used = set().union(*map(names_in, SOURCES))
    assert {"OnnxParser", "BuilderFlag.VERSION_COMPATIBLE", "TensorIOMode.INPUT", "Runtime"} <= used
    known = api(version)
    # A method of a class that we derive from is reached through it: ILogger.__init__.
    missing = {n for n in used if n not in known and not n.endswith("__init__")}
    assert not missing


def test_what_tensorrt_11_removed_is_not_in_its_listing() -> None:
    """The lint would find it: these exist in 10.3 and not in 11."""
    gone = {"BuilderFlag.FP16", "BuilderFlag.INT8", "ILayer.precision", "Builder.platform_has_fast_fp16"}
    assert gone <= api("10.3.0")
    assert not gone & api("11.0.0.114")


@pytest.mark.parametrize("version", TENSORRT)
def test_the_build_path_in_every_version(version: str, tmp_path: Path) -> None:
    recorder = Recorder(version)
    options = BuildOptions(batch=(1, 2, 4), workspace_mib=64, version_compatible=True, same_family=True)
    built = build(recorder.module, tmp_path / "g.onnx", {"sar": (1, 2, 8, 8)}, "fp32", options, timing_cache=b"old")
    assert (built.plan, built.timing_cache, built.layers) == (b"plan", b"timing", {"CONVOLUTION:FLOAT": 1})
    calls = dict(recorder.calls)
    flag = recorder.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert calls["Builder.create_network"] == ((1 << int(flag) if version.startswith("10.") else 0),)
    assert calls["IOptimizationProfile.set_shape"] == ("sar", (1, 2, 8, 8), (2, 2, 8, 8), (4, 2, 8, 8))
    assert calls["IBuilderConfig.set_memory_pool_limit"] == (recorder.module.MemoryPoolType.WORKSPACE, 64 << 20)
    assert calls["IBuilderConfig.create_timing_cache"] == (b"old",)
    assert calls["IBuilderConfig.set_flag"] == (recorder.module.BuilderFlag.VERSION_COMPATIBLE,)


def feeds(seed: int) -> dict[str, np.ndarray]:
    sar = np.random.default_rng(seed).normal(size=SHAPES["sar"]).astype(np.float32)
    return {"sar": sar, "sar_valid": np.ones(SHAPES["sar_valid"], bool)}


def expected(inputs: dict[str, np.ndarray]) -> np.ndarray:
    mean = inputs["sar"].reshape(2, -1).mean(1)[:, None, None, None] + np.arange(4)[None, :, None, None]
    return np.broadcast_to(mean, (2, 4, 8, 8))


def session(recorder: Recorder) -> TensorRtSession:
    engine = recorder.module.Runtime(None).deserialize_cuda_engine(b"plan")
    return TensorRtSession(recorder.module, recorder.cuda, engine, SHAPES)


@pytest.mark.parametrize("version", TENSORRT)
def test_runs_are_right_before_while_and_after_a_graph_is_recorded(version: str) -> None:
    recorder = Recorder(version)
    engine = session(recorder)
    for seed in range(4):
        np.testing.assert_allclose(engine.run(feeds(seed)), expected(feeds(seed)), rtol=1e-5)
    assert recorder.count("cudaMalloc") == recorder.count("cudaHostAlloc") == 3  # once, not once a run
    assert recorder.count("cudaStreamBeginCapture") == 1
    assert recorder.count("cudaGraphLaunch") == 3
    assert recorder.count("IExecutionContext.execute_async_v3") == 2  # the first run, and the recording
    order = [n for n in recorder.names() if n in ("IExecutionContext.set_optimization_profile_async", "cudaMalloc")]
    assert order[0] == "IExecutionContext.set_optimization_profile_async"


@pytest.mark.parametrize("version", TENSORRT)
def test_a_model_that_recovers_sensors_says_which(version: str) -> None:
    engine = session(Recorder(version, recovers=True))
    assert isinstance(engine, TracingSession)
    for seed in range(3):
        logits, recovered = engine.run_traced(feeds(seed))
        np.testing.assert_allclose(logits, expected(feeds(seed)), rtol=1e-5)
        assert recovered.shape == (2, 3, 8, 8)
        assert recovered.dtype == np.uint8
        assert recovered[:, 0].all()
        assert not recovered[:, 1:].any()


def test_each_worker_has_its_own_context_and_stream() -> None:
    recorder = Recorder("10.3.0")
    engine = session(recorder)
    engine.run(feeds(0))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(engine.run, feeds(1)).result()
    assert recorder.count("ICudaEngine.create_execution_context") == 2
    assert recorder.count("cudaStreamCreateWithFlags") == 2


@pytest.mark.parametrize("call", ["cudaMalloc", "cudaMemcpyAsync", "cudaStreamSynchronize"])
def test_a_cuda_error_is_raised_at_its_call(call: str) -> None:
    recorder = Recorder("11.4.0.106")
    recorder.cuda.fail = call
    with pytest.raises(CudaError, match="700"):
        session(recorder).run(feeds(0))


def test_the_recorder_knows_no_name_that_cuda_python_lacks() -> None:
    real = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    for name in (n for n in vars(Cuda) if n.startswith("cuda")):
        assert hasattr(real, name), name
    assert hasattr(real.cudaMemcpyKind, "cudaMemcpyHostToDevice")
    assert hasattr(real.cudaMemcpyKind, "cudaMemcpyDeviceToHost")
    assert hasattr(real.cudaStreamCaptureMode, "cudaStreamCaptureModeThreadLocal")


def test_silently_wrong_precisions_are_errors() -> None:
    check_types({"MATRIX_MULTIPLY:HALF": 3, "SOFTMAX:FLOAT": 1}, "fp16", "g")
    for layers, precision in (
        ({"MATRIX_MULTIPLY:FLOAT": 3}, "fp16"),
        ({"CONVOLUTION:HALF": 1}, "fp32"),
        ({"CONVOLUTION:FLOAT": 1}, "int8"),
        ({"CONVOLUTION:FLOAT": 1, "QUANTIZE:INT8": 1}, "fp32"),
    ):
        with pytest.raises(Exception, match=f"asked for in {precision}"):
            check_types(layers, precision, "g")


def test_an_inspector_s_json_is_read() -> None:
    layer = '{"Name": "a", "Outputs": [{"Name": "x", "Format/Datatype": "Row major linear FP16 format"}]}'
    for rest in ('"Bindings": ["x"]', '"I/O Tensors": ["x"]'):  # 10 and 11
        assert engine_types(f'{{"Layers": [{layer}, "a name alone"], {rest}}}') == {"Row major linear FP16 format": 1}
