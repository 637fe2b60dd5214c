"""Export a model that ships again, from its own weights: `python scripts/export_default.py mamol-conv`.

After a change of the exporter or of a block's arithmetic; the weights stay as they are. Quantized graphs are left out:
`quantize_default.py` comes next. What is written, runs/MODEL-export, takes the place of mmedge/bundles/MODEL.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import asdict
from pathlib import Path

from mmedge.bundle import builtin_bundles, open_bundle, write_model_json
from mmedge.edge.export import export_graphs, load_eager
from mmedge.edge.item import ROLES, bands_of
from mmedge.geo_io.tiling import widened


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=builtin_bundles())
    parser.add_argument("--out", type=Path, help="the bundle; runs/MODEL-export")
    args = parser.parse_args()
    bundle = open_bundle(args.model)
    tiling = widened(bundle.tiling)
    folder: Path = args.out or Path(f"runs/{bundle.name}-export")
    folder.mkdir(parents=True)
    export_graphs(load_eager(bundle.folder), folder, tiling)
    shutil.copy(bundle.folder / "LICENSE", folder)
    item = {key: value for key, value in bundle.item.items() if key != "assets"}
    item["properties"]["mmedge:tiling"] = asdict(tiling)
    write_model_json(folder, item, ROLES, {".safetensors": {"bands": bands_of(bundle.modalities)}})
    print(folder)


if __name__ == "__main__":
    main()
