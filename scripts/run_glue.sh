#!/usr/bin/env bash
# Runs a task of GLUE with the settings of the paper:
# run_glue.sh TASK [DATA_DIR] [--smoke] [--dry_run] [options of run_task.sh]
#   run_glue.sh rte                      downloads the data through PaddleNLP
#   run_glue.sh mnli glue_data/MNLI --masked_lm bert-base-uncased --word_vectors glove.6B.300d.txt
#   run_glue.sh cola --smoke             check that everything works: a few rows, about a minute
set -euo pipefail

declare -A samples=([cola]=CoLA [mnli]=MNLI [mrpc]=MRPC [qnli]=QNLI [qqp]=QQP [rte]=RTE [sst-2]=SST-2 [sts-b]=STS-B [wnli]=WNLI)
task=${1:-}
if [[ -z $task || -z ${samples[${task,,}]:-} ]]; then
    echo "error: '$task' is not a task of GLUE: $(printf '%s\n' "${!samples[@]}" | sort | paste -sd ' ')" >&2
    exit 2
fi
task=${task,,} && shift
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
also=()
[[ $task != mnli ]] || also=(--also mnli-mm)
exec bash "$root/scripts/run_task.sh" "glue/$task" "$@" --samples "$root/tests/samples/glue/${samples[$task]}" "${also[@]}"
