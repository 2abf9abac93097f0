#!/usr/bin/env bash
# Runs one task from data to bundle: optional data augmentation, all stages, the grid, an export, and a line of results.
# run_glue.sh, run_clue.sh and run_qqp.sh call it with the config of a task; without arguments it prints its usage.
set -euo pipefail

usage() {
    cat >&2 <<'END'
usage: run_task.sh CONFIG [DATA_DIR] [options]
  CONFIG                a built-in config, such as glue/rte, or a YAML file
  DATA_DIR              folder of the task in the official layout (default: download through PaddleNLP)
  --output_dir DIR      folder for the stages, grid.json and the bundle (default: out/CONFIG)
  --last_stage NAME     stage whose model is exported (default: depth)
  --subnet NAME         sub-network to export (default: w0.50d0.50)
  --also TASK           also evaluate the grid of the last stage on the dev set of this task
  --masked_lm NAME      augment the training data with this masked language model, as in the paper
  --word_vectors FILE   and with these GloVe vectors
  --smoke               check that everything works: a tiny model, two steps per stage, a few rows; about a minute
  --samples DIR         folder of these rows
  --dry_run             only print the commands
  -o KEY=VALUE          override a value of the config; may be repeated
END
    exit 2
}

source "$(dirname "${BASH_SOURCE[0]}")/lib/chain.sh"
[[ $# -gt 0 && $1 != -* ]] || usage
config=$1 && shift
data_dir='' samples='' output_dir='' last_stage=depth subnet=w0.50d0.50 also='' masked_lm='' word_vectors='' smoke='' dry_run='' overrides=()
if [[ $# -gt 0 && $1 != -* ]]; then
    data_dir=$1 && shift
fi
while [[ $# -gt 0 ]]; do
    case $1 in
        --samples | --output_dir | --last_stage | --subnet | --also | --masked_lm | --word_vectors | -o)
            [[ $# -gt 1 && $2 != -* ]] || die "$1 needs a value"
            if [[ $1 == -o ]]; then overrides+=(-o "$2"); else declare "${1#--}=$2"; fi
            shift 2
            ;;
        --smoke | --dry_run) declare "${1#--}=yes" && shift ;;
        *) die "unknown argument '$1'; 'run_task.sh' without arguments lists all" ;;
    esac
done
[[ -z $word_vectors || -n $masked_lm ]] || die "--word_vectors needs --masked_lm"
output_dir=${output_dir:-out/${smoke:+smoke/}${config%.yaml}}
if [[ -n $smoke ]]; then
    data_dir=$samples
    model=$output_dir/tiny
    overrides=(-o model_name_or_path="$model" -o train.max_steps=2 -o train.per_device_train_batch_size=4
        -o task.max_seq_length=32 "${overrides[@]}")
fi
[[ -z $data_dir || -d $data_dir ]] || die "$data_dir: no such folder; give the folder with the files of the task"

chain() {
    local data=() augmented=() settings=("${overrides[@]}")
    if [[ -n $data_dir ]]; then
        data=(--data_dir "$data_dir")
        settings=(-o task.data_dir="$data_dir" "${overrides[@]}")
    fi
    step bash "$root/scripts/setup_env.sh"
    [[ -z $smoke ]] || step "$root/.venv/bin/python" "$root/scripts/lib/tiny_model.py" "$model"
    if [[ -n $masked_lm ]]; then
        # The file name contains the models, so that augmentation by other models is not reused.
        local file=$output_dir/augmented-$(basename "$masked_lm")${word_vectors:+-$(basename "$word_vectors")}.tsv
        augmented=(-o width.augmented_file="$file" -o depth.augmented_file="$file")
        step mkdir -p "$output_dir"
        [[ -e $file ]] || step dynabert augment --config "$config" "${settings[@]}" --masked_lm "$masked_lm" \
            ${word_vectors:+--word_vectors "$word_vectors"} --output_file "$file"
    fi
    step dynabert run "$config" --output_dir "$output_dir" "${settings[@]}" "${augmented[@]}"
    [[ -z $also ]] || step dynabert evaluate "$output_dir/$last_stage" --grid --task_name "$also" "${data[@]}"
    step dynabert export "$output_dir/$last_stage" --subnet "$subnet" --output_dir "$output_dir/bundle" --overwrite_output_dir
    step "$root/.venv/bin/python" "$root/scripts/lib/report_line.py" "$output_dir"
}

run_chain "$dry_run"
