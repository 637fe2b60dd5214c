"""The eager backend's path for GPUs without one: CUDA graphs against a recorder that replays, torch.compile on the CPU.

The recorder has the names of `torch.cuda` and no others; it records every operation, and a replay computes them anew on
the same memory.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from networks import CHANNELS, small, windows  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_map  # noqa: E402

from mmedge.edge.runtime.eager import WARM_RUNS, EagerSession, Recorded  # noqa: E402
from mmedge.edge.runtime.session import GraphKey  # noqa: E402
from mmedge.modality import Availability  # noqa: E402

SENSORS = ("optical", "sar")
KEY = GraphKey(Availability.of(SENSORS, tuple(CHANNELS)), True)
CPU = torch.device("cpu")


class Operations(TorchDispatchMode):
    """Every operation with its arguments and result."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.done.append((func, args, kwargs or {}, result))
        return result


class Cuda:
    """`torch.cuda` on a CPU, as far as recording goes."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def is_available(self) -> bool:
        return False

    def Stream(self) -> Any:
        self.calls.append("Stream")
        return self

    def synchronize(self) -> None:
        self.calls.append("synchronize")

    def stream(self, stream: Any) -> Any:
        return nullcontext()

    def CUDAGraph(self) -> Any:
        self.operations = Operations()
        return self

    @contextmanager
    def graph(self, graph: Any, *, stream: Any, capture_error_mode: str) -> Iterator[None]:
        self.calls.append(capture_error_mode)
        with self.operations:
            yield

    def replay(self) -> None:
        self.calls.append("replay")
        for func, args, kwargs, result in self.operations.done:
            fresh = func(*args, **kwargs)
            tree_map(
                lambda old, new: old.copy_(new) if isinstance(old, torch.Tensor) and old is not new else None,
                result,
                fresh,
            )


def test_the_recorder_s_names_are_torch_s() -> None:
    for name in ("Stream", "stream", "CUDAGraph", "graph", "is_available"):
        assert hasattr(torch.cuda, name), name
    assert hasattr(torch.cuda.Stream, "synchronize")
    assert hasattr(torch.cuda.CUDAGraph, "replay")
    import inspect

    assert {"stream", "capture_error_mode"} <= set(inspect.signature(torch.cuda.graph.__init__).parameters)


def feeds(seed: int, batch: int = 2) -> dict[str, np.ndarray]:
    data, valid = windows(SENSORS, batch=batch, seed=seed)
    valid["sar"][:, :, : 8 + 4 * seed] = False
    return {m: data[m].numpy() for m in SENSORS} | {f"{m}_valid": valid[m].numpy() for m in SENSORS}


def test_a_replay_is_a_run() -> None:
    session = EagerSession(small("mamol"), KEY, where=CPU, bf16=False)
    cuda, calls = Cuda(), []

    def call(inputs: dict[str, Any]) -> Any:
        calls.append(1)
        return session._logits(inputs)

    recorded = Recorded(call, feeds(1), cuda, CPU)
    assert len(calls) == WARM_RUNS + 1
    for seed in (2, 3, 1):
        np.testing.assert_allclose(recorded.run(feeds(seed)), session.run(feeds(seed)), atol=1e-5)
    assert len(calls) == WARM_RUNS + 1  # the network's Python is not run again
    assert cuda.calls == ["Stream", "synchronize", "thread_local", "replay", "replay", "replay"]


def has_compiler() -> bool:
    return any(map(shutil.which, ("g++", "clang++", "c++")))


@pytest.mark.skipif(not has_compiler(), reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.filterwarnings("ignore")  # of the compiler's own
def test_the_compiled_network_gives_the_same() -> None:
    network = small("mamol").requires_grad_(False)
    session = EagerSession(network, KEY, where=CPU, bf16=False)
    compiled = EagerSession(torch.compile(network, dynamic=False), KEY, where=CPU, bf16=False)
    for seed in (1, 2):
        np.testing.assert_allclose(compiled.run(feeds(seed)), session.run(feeds(seed)), atol=1e-4)
