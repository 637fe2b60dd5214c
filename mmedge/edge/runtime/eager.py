"""The network itself in PyTorch: the reference on a CPU, and what runs on a GPU where TensorRT is absent."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmedge.bundle import Bundle
from mmedge.edge.export import load_eager
from mmedge.edge.models.network import Network
from mmedge.edge.runtime.session import Feeds, GraphKey
from mmedge.tile import Data


class EagerRuntime:
    """Rebuilds the network from the bundle's weights; on a GPU it is compiled. Fulfils `Runtime`.

    bf16 is autocast: normalisation and softmax stay in fp32.
    """

    name = "eager"

    def __init__(self, *, precision: str) -> None:
        self._bf16 = precision == "bf16"
        self._where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._models: dict[str, Network] = {}
        torch.set_num_threads(1)  # each worker thread computes on its own

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
        # Not with CUDA graphs: those of torch.compile belong to one thread, and workers share the network.
        self._model = torch.compile(model, dynamic=False) if where.type == "cuda" else model

    def run(self, feeds: Feeds) -> Data:
        with torch.inference_mode(), self._precision():
            logits: Tensor = self._model(*self._inputs(feeds), uniform=not self._key.mixed)
        return logits.float().cpu().numpy()

    def run_traced(self, feeds: Feeds) -> tuple[Data, npt.NDArray[Any]]:
        with torch.inference_mode(), self._precision():
            logits, recovered = self._network.answers(*self._inputs(feeds), uniform=not self._key.mixed)
        return logits.float().cpu().numpy(), recovered.cpu().numpy()

    def _inputs(self, feeds: Feeds) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        data = {m: self._tensor(feeds[m]) for m in self._key.availability}
        valid = {m: self._tensor(feeds[f"{m}_valid"]) for m in self._key.availability}
        return data, valid

    def _precision(self) -> torch.autocast:
        return torch.autocast(self._where.type, torch.bfloat16, enabled=self._bf16)

    def _tensor(self, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._where)
