#!/usr/bin/env bash
# From a fine-tuned model to bundles of a few megabytes, for Paddle Lite and ONNX Runtime: cuts the vocabulary and the
# positions, distils one sub-network with an embedding of a low rank (configs/phone.yaml), and exports it in int8.
# Finished parts are skipped.
#   phone.sh out/quickstart/finetune out/phone
set -euo pipefail

usage() {
    cat >&2 <<'END'
usage: phone.sh MODEL_DIR OUTPUT_DIR [options]
  MODEL_DIR             a fine-tuned model
  OUTPUT_DIR            folder for the parts; the bundles are its folders lite and onnx
  --vocab_size N        pieces to keep (default: 8000)
  --subnet NAME         the sub-network to ship, one that the config trains (default: w0.25d1.00r0.25)
  --config CONFIG       a built-in config or a YAML file (default: phone)
  --dry_run             only print the commands
  -o KEY=VALUE          override a value of the config; may be repeated
END
    exit 2
}

source "$(dirname "${BASH_SOURCE[0]}")/lib/chain.sh"
[[ $# -gt 1 && $1 != -* && $2 != -* ]] || usage
model=$1 output_dir=$2 vocab_size=8000 subnet=w0.25d1.00r0.25 config=phone dry_run='' overrides=()
shift 2
while [[ $# -gt 0 ]]; do
    case $1 in
        --vocab_size | --subnet | --config | -o)
            [[ $# -gt 1 && $2 != -* ]] || die "$1 needs a value"
            if [[ $1 == -o ]]; then overrides+=(-o "$2"); else declare "${1#--}=$2"; fi
            shift 2
            ;;
        --dry_run) dry_run=yes && shift ;;
        *) die "unknown argument '$1'; 'phone.sh' without arguments lists all" ;;
    esac
done
[[ -n $dry_run || -f $model/dynabert.json ]] || die "$model: no model folder; 'dynabert finetune' makes one"

chain() {
    local length format out=$output_dir settings=(--config "$config" "${overrides[@]}")
    step bash "$root/scripts/setup_env.sh"
    step bash "$root/scripts/setup_lite.sh"
    length=$(value MAX_SEQ_LENGTH python "$root/scripts/lib/smallest.py" length "$model")
    [[ -e $out/pieces/dynabert.json ]] || step dynabert compress vocabulary "$model" --vocab_size "$vocab_size" \
        --max_positions "$length" --output_dir "$out/pieces"
    [[ -e $out/rewire/dynabert.json ]] || step dynabert rewire "$out/pieces" "${settings[@]}" --output_dir "$out/rewire"
    [[ -e $out/width/dynabert.json ]] || step dynabert train_width "$out/rewire" "${settings[@]}" --output_dir "$out/width"
    [[ -e $out/small/dynabert.json ]] || step dynabert extract "$out/width" "$subnet" --output_dir "$out/small"
    for format in lite onnx; do
        [[ -e $out/$format/bundle.json ]] || step dynabert export "$out/small" --format "$format" --precision int8 \
            --output_dir "$out/$format"
    done
}

run_chain "$dry_run"
