#!/usr/bin/env bash
# Runs a task of CLUE, or one of two more Chinese tasks:
# run_clue.sh TASK [DATA_DIR] [--smoke] [--dry_run] [options of run_task.sh]
#   run_clue.sh tnews                    downloads the data through PaddleNLP
#   run_clue.sh afqmc clue/afqmc_public -o train.seed=1
#   run_clue.sh csl --smoke              check that everything works: a few rows, about a minute
set -euo pipefail

tasks="afqmc chnsenticorp cluewsc2020 cmnli csl iflytek lcqmc ocnli tnews"
task=${1:-}
if [[ -z $task || " $tasks " != *" ${task,,} "* ]]; then
    echo "error: '$task' is not a task of CLUE: $tasks" >&2
    exit 2
fi
task=${task,,} && shift
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
exec bash "$root/scripts/run_task.sh" "clue/$task" "$@" --samples "$root/tests/samples/clue/$task"
