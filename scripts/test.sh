#!/usr/bin/env bash
# Install mmedge with everything its tests need into a virtual environment of its own, and run them. Needs bash and
# Python >= 3.10; torch is a CPU build, pinned, and installed first so that nothing drags another one in.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${MMEDGE_VENV:-.venv}
[ -x "$venv/bin/pip" ] || "${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/pip" install -q --upgrade pip
"$venv/bin/pip" install -q -c scripts/constraints.txt torch
"$venv/bin/pip" install -q -c scripts/constraints.txt -e ".[train,export,quantize,report,onnxruntime,lidar,vector,xarray,batch,dev]"
# TensorRT for RTX parses and builds without a GPU (228 MB, x86-64 Linux only): the build path is tested where it installs.
if [ "$(uname -sm)" = "Linux x86_64" ]; then "$venv/bin/pip" install -q -e ".[tensorrt-rtx]"; fi
# A test process a core, which takes over what another has left; threads of torch's own on top only wait for each other.
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} "$venv/bin/python" -m pytest -n auto --dist worksteal "$@"
