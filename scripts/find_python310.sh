#!/usr/bin/env bash
# Print the path of a Python 3.10 that can make virtual environments; exit 1 where there is none.
set -u
for python in python3.10 "$HOME"/.pyenv/versions/3.10.*/bin/python /usr/local/bin/python3.10 /opt/python/cp310-cp310/bin/python; do
  if "$python" -c 'import sys, venv; sys.exit(sys.version_info[:2] != (3, 10))' 2>/dev/null; then
    command -v "$python"
    exit 0
  fi
done
exit 1
