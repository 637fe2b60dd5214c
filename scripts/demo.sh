#!/usr/bin/env bash
# Install mmedge into a virtual environment of its own and map the example scene. Needs bash and Python >= 3.10.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${MMEDGE_VENV:-.venv}
out=${MMEDGE_OUT:-maps}
[ -x "$venv/bin/pip" ] || "${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/pip" install -q --upgrade pip
"$venv/bin/pip" install -q -e .
mkdir -p "$out"
"$venv/bin/mmedge" infer examples/chile/scene.tif -o "$out/chile_map.tif" --overwrite -v
"$venv/bin/mmedge" infer examples/chile/scene.tif -o "$out/chile_radar_map.tif" --available sar --overwrite
echo "Look at $out/chile_map.png, or open $out/chile_map.tif in QGIS."
