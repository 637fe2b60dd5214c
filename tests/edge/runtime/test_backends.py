"""Every CPU backend gives the same map; `auto` says what it took; what a backend cannot do is said at once."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import rasterio

from mmedge.cli.app import run
from mmedge.edge.infer import infer
from mmedge.edge.runtime.open import Choice, check_choice, choose_backend, open_runtime
from mmedge.errors import MachineError, UsageError


def needs(*modules: str) -> pytest.MarkDecorator:
    absent = [m for m in modules if find_spec(m) is None]
    return pytest.mark.skipif(bool(absent), reason=f"needs {', '.join(absent)}")


@pytest.fixture(scope="module")
def reference(chile: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    return classes(chile, tmp_path_factory.mktemp("openvino"), backend="openvino")


def classes(chile: Path, folder: Path, **wishes: str) -> np.ndarray:
    record = infer(chile / "scene.tif", folder / "map.tif", **wishes)
    with rasterio.open(record.outputs.map) as src:
        return np.asarray(src.read(1))


@pytest.mark.parametrize(
    ("backend", "precision", "equal"),
    [
        pytest.param("onnxruntime", "fp32", 0.9999, marks=needs("onnxruntime")),
        pytest.param("eager", "fp32", 0.9999, marks=needs("torch", "onnx")),
        pytest.param("eager", "bf16", 0.97, marks=needs("torch", "onnx")),
        ("openvino", "bf16", 0.97),
    ],
)
def test_backends_give_the_same_map(
    chile: Path, tmp_path: Path, reference: np.ndarray, backend: str, precision: str, equal: float
) -> None:
    found = classes(chile, tmp_path, backend=backend, precision=precision)
    assert (found == reference).mean() >= equal


def test_auto_takes_the_gpu_where_something_can_use_it() -> None:
    assert choose_backend("fp32", gpu=None, torch_uses_it=False).backend == "openvino"
    assert choose_backend("bf16", gpu="Orin", torch_uses_it=True).backend == "eager"
    assert choose_backend("int8", gpu="Orin", torch_uses_it=True, engines="tensorrt").backend == "tensorrt"
    for precision, torch_uses_it in (("int8", True), ("fp32", False)):
        choice = choose_backend(precision, gpu="Orin", torch_uses_it=torch_uses_it)
        assert choice.backend == "openvino"
        assert choice.fallback
        assert "Orin" in choice.why
        check_choice(choice, precision, strict_device=False)
        with pytest.raises(MachineError, match="Orin"):
            check_choice(choice, precision, strict_device=True)


def test_what_a_backend_cannot_compute_is_said() -> None:
    for backend, precision in (("onnxruntime", "bf16"), ("eager", "int8"), ("tensorrt", "bf16")):
        with pytest.raises(UsageError, match=f"{backend} has no {precision}") as err:
            check_choice(Choice(backend, ""), precision, strict_device=False)
        assert "--backend " in err.value.hint
    with pytest.raises(UsageError, match="no backend `cuda`"):
        open_runtime("cuda", precision="fp32", threads=1)


def test_the_command_line_says_which_backend_it_took(
    chile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(["infer", str(chile / "scene.tif"), "-o", str(tmp_path / "map.tif"), "--verbose", "--available", "sar"])
    assert code == 0
    assert "backend " in capsys.readouterr().err
