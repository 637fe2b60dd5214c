"""Programs that torch-TensorRT has compiled, on an NVIDIA GPU through PyTorch.

Each worker thread loads a program of its own, so that none shares an execution context, and has its own stream.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmedge.bundle import Bundle
from mmedge.edge.engine.dynamo import NAME, versions
from mmedge.edge.engine.key import accepted_engine
from mmedge.edge.runtime.session import Feeds, GraphKey, Traits, input_shapes
from mmedge.errors import MachineError
from mmedge.tile import Data


class TorchTensorRtRuntime:
    """Loads what `mmedge compile --backend torch-tensorrt` has built on this machine. Fulfils `Runtime`.

    `ttrt` is the module `torch_tensorrt`, `device` names the GPU and its compute capability, `where` is its torch
    device. A foreign program is refused, never loaded.
    """

    name = NAME
    traits = Traits(batch=8, any_window=False)

    def __init__(
        self, ttrt: ModuleType, *, precision: str, device: str, folder: Path, where: torch.device | None = None
    ) -> None:
        self.device, self._precision, self._folder = device, precision, folder
        self._ttrt, self._where = ttrt, where or torch.device("cuda")

    def load(self, bundle: Bundle, key: GraphKey, *, batch: int) -> TorchTensorRtSession:
        here = {"backend": NAME, "version": versions(self._ttrt), "device": self.device}
        path, _ = accepted_engine(self._folder, bundle, key, precision=self._precision, batch=batch, **here)
        return self.open_file(path, bundle, key)

    def open_file(self, path: Path, bundle: Bundle, key: GraphKey) -> TorchTensorRtSession:
        """A session of a program that was checked or has just been saved."""
        return TorchTensorRtSession(self._ttrt, path, list(input_shapes(bundle, key, 1)), self._where)


class TorchTensorRtSession:
    """A saved program; `names` are its inputs in order. Fulfils `TracingSession`."""

    def __init__(self, ttrt: ModuleType, path: Path, names: list[str], where: torch.device) -> None:
        self._ttrt, self._path, self._names, self._where = ttrt, path, names, where
        self._local = threading.local()
        self._local.worker = self._worker()  # what cannot be loaded is said at once

    def run(self, feeds: Feeds) -> Data:
        return self._run(feeds)[0]

    def run_traced(self, feeds: Feeds) -> tuple[Data, npt.NDArray[Any]]:
        logits, recovered = self._run(feeds)
        return logits, recovered

    def _run(self, feeds: Feeds) -> list[npt.NDArray[Any]]:
        worker: _Worker | None = getattr(self._local, "worker", None)
        if worker is None:
            worker = self._local.worker = self._worker()
        return worker.run([feeds[name] for name in self._names])

    def _worker(self) -> _Worker:
        try:
            program = self._ttrt.load(str(self._path))
            return _Worker(program.module(), self._where)
        except (ValueError, RuntimeError, AttributeError, BadZipFile) as err:
            raise MachineError(
                f"torch-TensorRT cannot load `{self._path.name}`: {err}", hint="mmedge compile BUNDLE --overwrite"
            ) from err


class _Worker:
    """One thread's program and stream."""

    def __init__(self, module: Any, where: torch.device) -> None:
        self._module, self._where = module, where
        self._stream: Any = torch.cuda.Stream(where) if where.type == "cuda" else None  # type: ignore[no-untyped-call]

    def run(self, arrays: list[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """What the program gives, floats as float32."""
        with torch.inference_mode(), self._on_stream():
            outputs = self._module(*(self._tensor(array) for array in arrays))
            found = [outputs] if isinstance(outputs, Tensor) else outputs
            return [(y.float() if y.is_floating_point() else y).cpu().numpy() for y in found]  # waits for the stream

    def _on_stream(self) -> AbstractContextManager[Any]:
        return torch.cuda.stream(self._stream) if self._stream is not None else nullcontext()

    def _tensor(self, array: npt.NDArray[Any]) -> Tensor:
        host = torch.from_numpy(np.require(array, requirements=["C", "W"]))
        if self._stream is None:
            return host
        return host.pin_memory().to(self._where, non_blocking=True)  # only copies from pinned memory overlap kernels
