#!/usr/bin/env bash
# The whole suite, files spread over two processes. Usage: tests/run.sh FOLDER_OF_PYTHON [pytest arguments]
set -euo pipefail
bin=${1:?folder that holds python}
export OMP_NUM_THREADS=1 DS_ACCELERATOR=cpu TOKENIZERS_PARALLELISM=false
"$bin/python" -m pytest -n 2 --dist loadfile --durations=12 "${@:2}"
