"""Parse, type and build the graphs of a bundle with TensorRT for RTX, without a GPU: `python scripts/build_engines.py`.

Prints one line a graph and precision and writes them as JSON. Plans are thrown away: they belong to no repository.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from mmedge.bundle import open_bundle
from mmedge.edge.compile import CompileRequest, compile_bundle
from mmedge.edge.device import cpu_flags, cpu_name
from mmedge.edge.runtime.session import GraphKey


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mamol-terra")
    parser.add_argument("--precisions", nargs="+", help="default: those of the bundle, and fp16")
    parser.add_argument("--only", nargs="+", help="graphs, such as sar or optical+sar.mixed; default: all")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    bundle = open_bundle(args.model)
    rows = []
    for precision in args.precisions or (*bundle.precisions(), "fp16"):
        keys = [key for key in GraphKey.every(bundle) if not args.only or str(key) in args.only]
        with tempfile.TemporaryDirectory() as folder:
            request = CompileRequest(
                bundle=bundle, folder=Path(folder), backend="tensorrt-rtx", precision=precision, keys=keys
            )
            for engine in compile_bundle(request):
                size, key = engine.path.stat().st_size, json.loads(engine.path.with_suffix(".json").read_text())["key"]
                row = {"graph": str(engine.key), "precision": precision, "plan_mb": round(size / 1e6, 1)}
                rows.append({**row, "seconds": engine.facts["seconds"], "layers": engine.facts["layers"]})
                print(*row.values(), f"{engine.facts['seconds']} s", flush=True)
        document = {"backend": key["backend"], "version": key["version"], "cpu": cpu_name(), "flags": cpu_flags()}
        if args.out:
            args.out.write_text(json.dumps({**document, "built": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
