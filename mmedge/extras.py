"""Late imports of optional dependencies: one function, which names the extra to install."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from mmedge.errors import MissingExtraError

EXTRA = {
    "torch": "train",
    "sklearn": "train",
    "scipy": "train",
    "safetensors": "train",
    "pydantic": "train",
    "yaml": "train",
    "matplotlib": "report",
    "onnx": "export",
    "onnxruntime": "onnxruntime",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt-rtx",
    "cuda": "tensorrt",
    "torch_tensorrt": "torch-tensorrt",
    "laspy": "lidar",
    "lazrs": "lidar",
    "pyogrio": "vector",
    "shapely": "vector",
    "xarray": "xarray",
    "ray": "batch",
}


def need(module: str, *, extra: str = "") -> ModuleType:
    """Import `module`; where it is not installed, raise an error that names the extra which brings it.

    `extra`: the one to name, of several that bring the module.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as err:
        root = module.partition(".")[0]
        if err.name != root:
            raise  # installed but broken: let the real error show
        hint = f"pip install 'mmedge[{extra or EXTRA[root]}]'"
        raise MissingExtraError(f"`{root}` is not installed", hint=hint) from None
