#!/usr/bin/env bash
# An environment for each peer under FOLDER, on top of the packages of PYTHON (numpy, rasterio, torch, onnxruntime).
#
#     bash benchmarks/peers/install.sh FOLDER [PYTHON]
#
# Peers are installed without their dependencies where those would replace torch or need torchvision; what their tiling
# code imports is named instead. A peer that cannot be installed leaves FOLDER/NAME/failed with the reason.
set -uo pipefail
folder=$1
python=${2:-python3}
base=$("$python" -c 'import rasterio, pathlib; print(pathlib.Path(rasterio.__file__).parents[1])')

install() { # name, packages...
  local name=$1 env=$folder/$1
  shift
  [ -e "$env/done" ] && return
  rm -rf "$env"
  "$python" -m venv "$env" || return
  echo "$base" >"$env/lib/$(ls "$env/lib")/site-packages/base.pth"
  if "$env/bin/python" -m pip install -q --no-deps "$@" >"$env/log" 2>&1; then
    touch "$env/done"
  else
    tail -n 3 "$env/log" >"$env/failed"
    echo "$name: $(cat "$env/failed")" >&2
  fi
}

install geodeep 'geodeep==0.9.13'
install omnicloudmask 'omnicloudmask==1.8.1' tqdm fsspec gdown requests filelock urllib3 idna certifi charset_normalizer \
  beautifulsoup4 soupsieve platformdirs safetensors classcounter 'huggingface_hub==0.34.4' packaging typing_extensions
install monai 'monai==1.6.1'
install dask 'dask==2026.3.0' toolz cloudpickle partd locket fsspec pyyaml click importlib_metadata zipp lazy_importer
install terratorch 'terratorch==1.2.13' tqdm
install torchgeo 'torchgeo==0.8.1' lightning-utilities einops pandas python-dateutil geopandas pyproj shapely pyogrio kornia kornia-rs
