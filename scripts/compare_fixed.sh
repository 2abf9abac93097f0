#!/usr/bin/env bash
# Compares DynaBERT's sub-networks with fixed-size models that have the same MACs and are trained on as many examples:
# for each seed a complete run and each method of `dynabert baseline`, then one table. Finished parts are skipped.
#   compare_fixed.sh                     the quick start, three seeds
#   compare_fixed.sh glue/rte --seeds "1 2 3 4 5" -o task.data_dir=glue_data/RTE
#   compare_fixed.sh --smoke             check that everything works: a tiny model on a few rows
set -euo pipefail

usage() {
    cat >&2 <<'END'
usage: compare_fixed.sh [CONFIG] [options]
  CONFIG                a built-in config, such as glue/rte, or a YAML file (default: quickstart)
  --subnet NAME         shape of the fixed-size models; with all heads, which TinyBERT needs (default: w1.00d0.50)
  --seeds "N ..."       one run and one model of each method per seed (default: "1 2 3")
  --output_dir DIR      folder for a run per seed, comparison.json and comparison.csv (default: out/compare/CONFIG)
  --smoke               check that everything works: a tiny model, two steps per stage, a few rows; about a minute
  --dry_run             only print the commands
  -o KEY=VALUE          override a value of the config; may be repeated
END
    exit 2
}

source "$(dirname "${BASH_SOURCE[0]}")/lib/chain.sh"
config=quickstart subnet=w1.00d0.50 seeds='1 2 3' output_dir='' smoke='' dry_run='' overrides=()
if [[ $# -gt 0 && $1 != -* ]]; then
    config=$1 && shift
fi
while [[ $# -gt 0 ]]; do
    case $1 in
        --subnet | --seeds | --output_dir | -o)
            [[ $# -gt 1 && $2 != -* ]] || die "$1 needs a value"
            if [[ $1 == -o ]]; then overrides+=(-o "$2"); else declare "${1#--}=$2"; fi
            shift 2
            ;;
        --smoke | --dry_run) declare "${1#--}=yes" && shift ;;
        --help) usage ;;
        *) die "unknown argument '$1'; 'compare_fixed.sh --help' lists all arguments" ;;
    esac
done
[[ $seeds =~ ^[0-9]+(\ +[0-9]+)*$ ]] || die "--seeds are numbers such as \"1 2 3\", not '$seeds'"
output_dir=${output_dir:-out/compare/${smoke:+smoke/}${config%.yaml}}
if [[ -n $smoke ]]; then
    model=$output_dir/tiny
    overrides=(-o model_name_or_path="$model" -o task.name=rte -o task.data_dir="$root/tests/samples/glue/RTE"
        -o task.max_seq_length=32 -o train.max_steps=2 -o train.per_device_train_batch_size=4 "${overrides[@]}")
fi

chain() {
    local seed run method source folder examples settings runs=()
    step bash "$root/scripts/setup_env.sh"
    [[ -z $smoke ]] || step python "$root/scripts/lib/tiny_model.py" "$model"
    for seed in $seeds; do
        run=$output_dir/seed-$seed
        runs+=("$run")
        settings=("${overrides[@]}" -o train.seed="$seed")
        step dynabert run "$config" --output_dir "$run" "${settings[@]}"
        examples=$(value EXAMPLES python "$root/scripts/lib/compare_fixed.py" examples "$run")
        for method in distilbert tinybert pruned finetuned; do
            source=$run/finetune
            [[ $method != pruned ]] || source=$run/rewire
            folder=$run/baselines/$method-$subnet
            [[ -e $folder/dynabert.json ]] || step dynabert baseline "$method" "$source" --subnet "$subnet" \
                --num_examples "$examples" --output_dir "$folder" --config "$config" "${settings[@]}"
        done
    done
    step python "$root/scripts/lib/compare_fixed.py" table "$output_dir" "$subnet" "${runs[@]}"
}

run_chain "$dry_run"
