#!/usr/bin/env bash
# Restores punctuation: from files of `word<TAB>label` lines, with the labels O, COMMA, PERIOD and QUESTION, to a bundle that gives texts back with
# their marks: run_punctuation.sh DATA_DIR|snips [--smoke] [--dry_run] [options of run_task.sh]
#   run_punctuation.sh iwslt2012         a folder with train.txt and dev.txt; the backbone is ELECTRA
#   run_punctuation.sh snips             the built-in backbone on sentences of snips, in minutes on a CPU
#   run_punctuation.sh --smoke           check that everything works: a few words, about a minute
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
run=(bash "$root/scripts/run_task.sh" punctuation)
samples=(--samples "$root/tests/samples/punctuation")
case ${1:-} in
    snips)
        shift
        data=out/punctuation/snips
        if [[ " $* " != *" --dry_run "* ]]; then
            bash "$root/scripts/setup_env.sh" >&2
            "$root/.venv/bin/python" "$root/scripts/lib/snips_words.py" "$data"
        fi
        exec "${run[@]}" --output_dir "$data/run" --subnet w1.00d1.00 -o task.data_dir="$data" -o model_name_or_path=minilm-l6 \
            -o task.max_seq_length=64 -o task.doc_stride=48 -o train.per_device_train_batch_size=16 -o train.holdout_size=5 \
            -o train.learning_rate=2e-4 -o train.eval_steps=1000000 -o finetune.max_steps=150 -o width.max_steps=15 \
            -o depth.max_steps=20 -o depth.subnets_per_step=sandwich \
            "$@" "${samples[@]}"
        ;;
    '') echo "error: name a folder with train.txt and dev.txt, or snips" >&2 && exit 2 ;;
    *) exec "${run[@]}" "$@" "${samples[@]}" ;;
esac
