#!/usr/bin/env bash
# Every figure of docs/results/{floors,peers,scaling}.md, in one quiet run: about 40 minutes on 2 cores.
#
#     bash benchmarks/measure.sh FOLDER prepare      # scenes, network, int8: needs no quiet machine
#     bash benchmarks/measure.sh FOLDER              # measure; what FOLDER/results holds is not measured again
#     bash benchmarks/measure.sh FOLDER tables       # docs/results from FOLDER/results; then python -m benchmarks.readme
#
# Peers are expected where benchmarks/peers/install.sh has put them: PEERS, else FOLDER/peers. PYTHON: the interpreter.
set -euo pipefail
if [ "${2:-}" = prepare ]; then # page faults are half of what training takes otherwise
  export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296 MALLOC_TOP_PAD_=268435456
fi
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" -m benchmarks.measure "$@"
