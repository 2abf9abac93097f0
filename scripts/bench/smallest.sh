#!/usr/bin/env bash
# How small a model for a phone can be, and what that costs: for each task and seed MiniLM-L6 is fine-tuned, and
# scripts/phone.sh makes the bundles. A part (a task with one seed) that the result file has is not run again, and one
# that was interrupted goes on, so that several machines can share the work.
#   smallest.sh                                   snips and SST-2's first 20,000 rows, 3 seeds, into docs/smallest.json
#   smallest.sh --tasks snips --seeds 1
#   smallest.sh --held_out                        to choose a recipe: scored on a tenth of the training rows
set -euo pipefail

usage() {
    cat >&2 <<'END'
usage: smallest.sh [options]
  --tasks "NAME ..."    snips, sst-2 (default: both)
  --seeds "N ..."       (default: "1 2 3")
  --sst2_dir DIR        SST-2's official files (default: ../shared/data/glue/SST-2 beside this checkout)
  --held_out            score on training rows that are held out, not on the dev set
  --output_dir DIR      folder of the parts (default: out/smallest)
  --result_file FILE    (default: docs/smallest.json; with --held_out OUTPUT_DIR/held-out.json)
  --dry_run             only print the commands
END
    exit 2
}

source "$(dirname "${BASH_SOURCE[0]}")/../lib/chain.sh"
tasks='snips sst-2' seeds='1 2 3' sst2_dir=$root/../shared/data/glue/SST-2 held_out='' output_dir=out/smallest
result_file='' dry_run=''
while [[ $# -gt 0 ]]; do
    case $1 in
        --tasks | --seeds | --sst2_dir | --output_dir | --result_file)
            [[ $# -gt 1 && $2 != -* ]] || die "$1 needs a value"
            declare "${1#--}=$2" && shift 2
            ;;
        --held_out | --dry_run) declare "${1#--}=yes" && shift ;;
        --help) usage ;;
        *) die "unknown argument '$1'; 'smallest.sh --help' lists all arguments" ;;
    esac
done
default=$root/docs/smallest.json
[[ -z $held_out ]] || default=$output_dir/held-out.json
result_file=${result_file:-$default}
[[ $seeds =~ ^[0-9]+(\ +[0-9]+)*$ ]] || die "--seeds are numbers such as \"1 2 3\", not '$seeds'"

# Of each task: the folder of its files, the training rows that are used, and the steps of the fine-tuning.
declare -A sources=([snips]="$root/dynabert_paddle/data/snips" [sst-2]="$sst2_dir")
declare -A rows=([snips]=13784 [sst-2]=20000) steps=([snips]=200 [sst-2]=600)
for task in $tasks; do
    [[ -n ${sources[$task]:-} ]] || die "--tasks are snips and sst-2, not '$task'"
done

chain() {
    local task seed data part helper=$root/scripts/lib/smallest.py
    step bash "$root/scripts/setup_env.sh"
    for task in $tasks; do
        data=$output_dir/$task/data${held_out:+-held-out}
        for seed in $seeds; do
            part=$output_dir/$task/seed-$seed${held_out:+-held-out}
            [[ $(value MISSING python "$helper" state "$result_file" "$task" "$seed") != present ]] || continue
            [[ -e $data/train.tsv ]] || step python "$helper" data "${sources[$task]}" "$data" \
                --rows "${rows[$task]}" ${held_out:+--held_out}
            [[ -e $part/full/dynabert.json ]] || step dynabert finetune --task_name "$task" --data_dir "$data" \
                --max_seq_length 64 --max_steps "${steps[$task]}" --learning_rate 1e-4 --eval_steps 1000000 --seed "$seed" \
                --output_dir "$part/full"
            step bash "$root/scripts/phone.sh" "$part/full" "$part" -o train.seed="$seed"
            step python "$helper" record "$result_file" "$task" "$seed" "$part"
        done
    done
    step python "$helper" show "$result_file"
}

run_chain "$dry_run"
