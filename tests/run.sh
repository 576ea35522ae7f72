#!/usr/bin/env bash
# The whole suite. First what takes one process a test, files spread over two; then, one after
# another, what starts ranks or a cluster: ranks that wait for each other while two other tests hold
# the cores take ten times as long. Usage: tests/run.sh FOLDER_OF_PYTHON [pytest arguments but -m]
set -uo pipefail
bin=${1:?folder that holds python}
export OMP_NUM_THREADS=1 DS_ACCELERATOR=cpu TOKENIZERS_PARALLELISM=false
shared=0 alone=0
"$bin/python" -m pytest -m "not alone" -n 2 --dist loadfile --durations=12 "${@:2}" || shared=$?
"$bin/python" -m pytest -m alone --durations=12 "${@:2}" || alone=$?
# 5: no test was chosen, as when the arguments name tests of one kind only.
if [ $shared = 5 ]; then shared=$alone; fi
if [ $alone = 5 ]; then alone=$shared; fi
exit $((shared > alone ? shared : alone))
