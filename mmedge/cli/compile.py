"""`mmedge compile`: TensorRT engines for the graphs of a bundle."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from mmedge.cli import options as o
from mmedge.cli.console import Console
from mmedge.errors import UsageError

if TYPE_CHECKING:
    from mmedge.edge.engine.key import BuildOptions

NAME = "compile"


def run(
    model: Annotated[str, typer.Argument(help="A built-in model, or a bundle folder.")],
    scenes: Annotated[
        str | None, typer.Option("--scenes", help="Real windows to accept the engines on.", show_default=False)
    ] = None,
    backend: Annotated[str, typer.Option("--backend", help="tensorrt, tensorrt-rtx or torch-tensorrt.")] = "tensorrt",
    precision: Annotated[str, typer.Option("--precision", help="fp32, fp16 or int8.")] = "fp16",
    available: o.Available = None,
    batch: Annotated[
        str, typer.Option("--batch", metavar="MIN,OPT,MAX", help="Windows a batch; one number: a static batch.")
    ] = "8",
    workspace: Annotated[int, typer.Option("--workspace", min=16, help="Limit in MiB.")] = 1024,
    optimization: Annotated[int, typer.Option("--optimization", min=0, max=5, help="5 searches longest.")] = 3,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Plans that later TensorRTs load; slower.")
    ] = False,
    same_family: Annotated[
        bool, typer.Option("--same-family", help="Plans for other GPUs from Ampere on; slower.")
    ] = False,
    cache: Annotated[
        o.OptionalPath, typer.Option("--cache", envvar="MMEDGE_ENGINES", help="Where engines go.", show_default=False)
    ] = None,
    overwrite: o.Overwrite = False,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> int:
    """Build TensorRT engines for a bundle on this device, and accept them against fp32 on real windows.

    Example: mmedge compile mamol-terra --precision fp16 --scenes scene.tif
    """
    from contextlib import nullcontext

    from mmedge.bundle import open_bundle
    from mmedge.edge.compile import CompileRequest, compile_bundle
    from mmedge.edge.engine.compilers import check_precision
    from mmedge.edge.engine.key import cache_folder
    from mmedge.edge.runtime.session import GraphKey
    from mmedge.geo_io.location import locate
    from mmedge.geo_io.scene import open_scene

    console = Console(quiet=quiet, verbose=verbose)
    bundle, names = open_bundle(model), set(o.commas(available))
    keys = [k for k in GraphKey.every(bundle) if not names or set(k.availability) == names]
    if not keys:
        raise UsageError(f"`{bundle.name}` has no graph for {'+'.join(sorted(names))}", hint=f"mmedge info {model}")
    folder, options = cache_folder(cache), _options(batch, workspace, optimization, version_compatible, same_family)
    check_precision(backend, precision)
    if dry_run:
        plan = {"schema": "mmedge.compile.plan/1", "writes": str(folder), "graphs": [str(key) for key in keys]}
        console.data(plan, "\n".join([f"into {folder}:", *plan["graphs"]]), as_json=as_json)
        return 0
    rows, start = [], time.monotonic()
    with open_scene(locate(scenes), bundle.modalities) if scenes else nullcontext() as scene:
        request = CompileRequest(
            bundle=bundle,
            folder=folder,
            backend=backend,
            precision=precision,
            keys=keys,
            options=options,
            scene=scene,
            overwrite=overwrite,
        )
        for engine in compile_bundle(request, say=console.detail):
            rows.append({"graph": str(engine.key), "engine": str(engine.path), "cached": engine.cached, **engine.facts})
            spent = time.monotonic() - start
            left = spent / len(rows) * (len(keys) - len(rows))
            state = "cached" if engine.cached else "accepted" if engine.accepted else "built, not accepted: no GPU here"
            console.note(f"[{len(rows)}/{len(keys)}] {engine.key}: {state}; {spent:.0f} s, about {left:.0f} s left")
    document = {"schema": "mmedge.compile/1", "backend": backend, "precision": precision, "engines": rows}
    console.data(document, "\n".join(str(row["engine"]) for row in rows), as_json=as_json)
    return 0


def _options(
    batch: str, workspace: int, optimization: int, version_compatible: bool, same_family: bool
) -> BuildOptions:
    from mmedge.edge.engine.key import BuildOptions

    try:
        sizes = [int(n) for n in batch.split(",")]
        least, usual, largest = sizes * 3 if len(sizes) == 1 else sizes
        return BuildOptions(
            batch=(least, usual, largest),
            workspace_mib=workspace,
            optimization=optimization,
            version_compatible=version_compatible,
            same_family=same_family,
        )
    except ValueError:
        raise UsageError(f"`--batch {batch}` is not MIN,OPT,MAX", hint="--batch 8, or --batch 1,8,16") from None
