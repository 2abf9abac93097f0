#!/usr/bin/env bash
# A sub-network for phones: export_lite.sh MODEL_DIR [SUBNET] [BUNDLE] [--precision fp32|int16|int8] [--smoke] [--dry_run]
# makes Paddle Lite's converter, exports, and lets the bundle predict on the converter's own x86 runtime.
#   export_lite.sh out/glue/rte/depth w0.50d0.50 out/phone --precision int8
#   export_lite.sh --smoke               on a tiny model
set -euo pipefail

die() {
    echo "error: $*" >&2
    exit 2
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
words=() precision=fp32 smoke='' dry_run=''
while [[ $# -gt 0 ]]; do
    case $1 in
        --precision)
            [[ $# -gt 1 ]] || die "--precision needs a value: fp32, int16 or int8"
            precision=$2 && shift 2
            ;;
        --smoke | --dry_run) declare "${1#--}=yes" && shift ;;
        -*) die "unknown argument '$1'; there are --precision, --smoke and --dry_run" ;;
        *) words+=("$1") && shift ;;
    esac
done
if [[ -n $smoke ]]; then
    model=out/smoke/lite/tiny
else
    [[ ${#words[@]} -ge 1 ]] || die "name the model folder that a stage has made, such as out/glue/rte/depth"
    model=${words[0]}
    [[ -d $model || -n $dry_run ]] || die "$model: no such model folder"
fi
subnet=${words[1]:-w0.50d0.50}
bundle=${words[2]:-$model-$subnet-lite}

chain() {
    step bash "$root/scripts/setup_env.sh"
    step bash "$root/scripts/setup_lite.sh"
    [[ -z $smoke ]] || step "$root/.venv/bin/python" "$root/scripts/lib/tiny_model.py" "$model"
    step "$root/.venv/bin/dynabert" export "$model" --subnet "$subnet" --format lite --precision "$precision" \
        --output_dir "$bundle" --overwrite_output_dir
    step "$root/.venv-lite/bin/python" "$bundle/infer_lite.py" "an example text"
}

step() { printf '+ %s\n' "$(printf '%q ' "$@")"; }
chain
[[ -z $dry_run ]] || exit 0
step() { "$@"; }
chain
