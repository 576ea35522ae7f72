#!/usr/bin/env bash
# The whole suite with coverage, files spread over two processes. Usage: tests/run.sh FOLDER_OF_PYTHON
set -euo pipefail
bin=${1:?folder that holds python}
export OMP_NUM_THREADS=1 DS_ACCELERATOR=cpu TOKENIZERS_PARALLELISM=false
rm -f .coverage .coverage.*
"$bin/python" -m pytest -n 2 --dist loadfile --cov --cov-report=term:skip-covered \
    --cov-fail-under=85 --durations=12 "${@:2}"
