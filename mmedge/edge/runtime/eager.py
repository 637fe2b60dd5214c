"""The network itself in PyTorch: the reference on a CPU, and what runs on a GPU where TensorRT is absent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmedge.bundle import Bundle
from mmedge.edge.export import load_eager
from mmedge.edge.models.network import Network
from mmedge.edge.runtime.session import Feeds, GraphKey, Traits
from mmedge.tile import Data

WARM_RUNS = 3  # before a CUDA graph is recorded: compilation and the libraries' own setting up cannot be recorded
Call = Callable[[dict[str, Tensor]], Tensor]


class EagerRuntime:
    """Rebuilds the network from the bundle's weights; on a GPU it is compiled and recorded. Fulfils `Runtime`.

    bf16 is autocast: normalisation and softmax stay in fp32.
    """

    name = "eager"

    def __init__(self, *, precision: str) -> None:
        self._bf16 = precision == "bf16"
        self._where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._models: dict[str, Network] = {}
        torch.set_num_threads(1)  # each worker thread computes on its own

    @property
    def traits(self) -> Traits:
        return Traits(batch=8, any_window=False) if self._where.type == "cuda" else Traits()

    @property
    def device(self) -> str:
        return torch.cuda.get_device_name() if self._where.type == "cuda" else "CPU"

    def load(self, bundle: Bundle, key: GraphKey, *, batch: int) -> EagerSession:
        if bundle.sha256 not in self._models:
            self._models[bundle.sha256] = load_eager(bundle.folder).to(self._where)
        model = self._models[bundle.sha256]
        return EagerSession(model, key, where=self._where, bf16=self._bf16)


class EagerSession:
    """The network with the sensors of one graph. Fulfils `TracingSession`."""

    def __init__(self, model: Network, key: GraphKey, *, where: torch.device, bf16: bool) -> None:
        self._key, self._where, self._bf16, self._network = key, where, bf16, model
        self._model = torch.compile(model, dynamic=False) if where.type == "cuda" else model
        self._local = threading.local()

    def run(self, feeds: Feeds) -> Data:
        if self._where.type == "cpu":
            with torch.inference_mode():
                return self._logits(self._inputs(feeds)).numpy()
        # torch.compile's own CUDA graphs belong to one thread; each of our workers has its own, by batch size.
        recorded: dict[int, Recorded] = self._local.__dict__.setdefault("recorded", {})
        batch = len(next(iter(feeds.values())))
        if batch not in recorded:
            recorded[batch] = Recorded(self._logits, feeds, torch.cuda, self._where)
        return recorded[batch].run(feeds)

    def run_traced(self, feeds: Feeds) -> tuple[Data, npt.NDArray[Any]]:
        with torch.inference_mode(), self._precision():
            logits, recovered = self._network.answers(
                *self._by_sensor(self._inputs(feeds)), uniform=not self._key.mixed
            )
        return logits.float().cpu().numpy(), recovered.cpu().numpy()

    def _logits(self, inputs: dict[str, Tensor]) -> Tensor:
        with self._precision():
            logits: Tensor = self._model(*self._by_sensor(inputs), uniform=not self._key.mixed)
        return logits.float()

    def _inputs(self, feeds: Feeds) -> dict[str, Tensor]:
        return {
            name: torch.from_numpy(np.require(x, requirements=["C", "W"])).to(self._where) for name, x in feeds.items()
        }

    def _by_sensor(self, inputs: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Data and valid."""
        sensors = self._key.availability
        return {m: inputs[m] for m in sensors}, {m: inputs[f"{m}_valid"] for m in sensors}

    def _precision(self) -> torch.autocast:
        return torch.autocast(self._where.type, torch.bfloat16, enabled=self._bf16)


class Recorded:
    """A call on inputs of fixed shapes, recorded as a CUDA graph on a stream of its own: one launch for every kernel.

    `cuda` is `torch.cuda`. Only this thread's calls are recorded; others may compute at the same time.
    """

    def __init__(self, call: Call, feeds: Feeds, cuda: Any, where: torch.device) -> None:
        self._cuda, self._stream = cuda, cuda.Stream()
        self._host = {name: self._pinned(x) for name, x in feeds.items()}
        with torch.inference_mode(), cuda.stream(self._stream):
            self._inputs = {name: x.to(where) for name, x in self._host.items()}
            for _ in range(WARM_RUNS):
                call(self._inputs)
            self._stream.synchronize()
            self._graph = cuda.CUDAGraph()
            with cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
                self._output = call(self._inputs)

    def run(self, feeds: Feeds) -> Data:
        with torch.inference_mode(), self._cuda.stream(self._stream):
            for name, array in feeds.items():
                self._host[name].copy_(torch.from_numpy(np.require(array, requirements=["C", "W"])))
                self._inputs[name].copy_(self._host[name], non_blocking=True)
            self._graph.replay()
            return self._output.cpu().numpy()  # waits for the stream

    def _pinned(self, array: npt.NDArray[Any]) -> Tensor:
        """Page-locked memory, where there is a GPU: only copies from it run beside kernels."""
        host = torch.from_numpy(np.array(array))
        return host.pin_memory() if self._cuda.is_available() else host
