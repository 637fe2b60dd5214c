"""A recorder in place of torch-TensorRT, specified from the names of each version: what is not listed is not there.

It computes: the "compiled" module is the exported program itself, which PyTorch runs, saves and loads.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

VERSIONS = {v: 1 << i for i, v in enumerate(("2.8.0", "2.9.0", "2.10.0", "2.11.0", "2.12.0", "2.13.0", "2.14.0"))}
LISTING = Path(__file__).parents[2] / "data" / "torch_tensorrt_api.txt"


def api(version: str) -> frozenset[str]:
    """Names of a version; a keyword argument as `save(retrace)`."""
    rows = (line.split(" ", 1) for line in LISTING.read_text().splitlines() if not line.startswith("#"))
    return frozenset(name for bits, name in rows if int(bits, 16) & VERSIONS[version])


class Input:
    """The profile of one input."""

    def __init__(self, **wishes: Any) -> None:
        self.wishes = wishes
        self.shape = wishes.get("shape") or wishes["opt_shape"]


class Compiled(nn.Module):
    """What `dynamo.compile` gives: parts of a graph, each named for who runs it."""

    def __init__(self, program: ExportedProgram, part: str) -> None:
        super().__init__()
        self.program = program
        self.add_module(f"{part}_0", program.module())


class Recorder:
    """One version: its module, and the calls. `part`: who runs the graph; `fails`: what compile raises."""

    def __init__(self, version: str, *, part: str = "_run_on_acc", fails: Exception | None = None) -> None:
        self.version, self.api, self.part, self.fails = version, api(version), part, fails
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.module = ModuleType("torch_tensorrt")
        self.module.__dict__.update(
            __version__=version,
            Input=self._listed("Input", Input),
            save=self._listed("save", self._save),
            load=self._listed("load", self._load),
            dynamo=SimpleNamespace(compile=self._listed("dynamo.compile", self._compile)),
        )

    def count(self, name: str) -> int:
        return sum(name == called for called, _ in self.calls)

    def _listed(self, name: str, work: Any) -> Any:
        """A function that takes the version's arguments and no others."""
        known = [n[len(name) + 1 : -1] for n in sorted(self.api) if n.startswith(f"{name}(")]
        first = {"dynamo.compile": "exported_program", "save": "module", "load": "file_path"}.get(name)
        order = sorted(known, key=lambda n: (n != first, n != "file_path"))
        kinds = inspect.Parameter
        signature = inspect.Signature([kinds(n, kinds.POSITIONAL_OR_KEYWORD, default=None) for n in order])

        def call(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs).arguments
            self.calls.append((name, bound))
            return work(**bound)

        call.__signature__ = signature  # type: ignore[attr-defined]
        return call

    def _compile(self, exported_program: ExportedProgram, arg_inputs: list[Input], **settings: Any) -> Compiled:
        if self.fails:
            raise self.fails
        dtypes = [i.wishes["dtype"] for i in arg_inputs]
        exported_program.module()(*(torch.ones(i.shape, dtype=d) for i, d in zip(arg_inputs, dtypes, strict=True)))
        return Compiled(exported_program, self.part)

    def _save(self, module: Compiled, file_path: str, output_format: str, retrace: bool) -> None:
        if output_format != "exported_program" or retrace:
            raise ValueError(f"{output_format}, retrace={retrace}")
        torch.export.save(module.program, file_path)

    def _load(self, file_path: str) -> ExportedProgram:
        return torch.export.load(file_path)
