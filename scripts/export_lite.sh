#!/usr/bin/env bash
# Exports a sub-network for phones: installs Paddle Lite's converter, exports, and tests the bundle on the x86 runtime
# that comes with the converter.
# export_lite.sh MODEL_DIR [SUBNET] [BUNDLE] [--precision fp32|int16|int8] [--smoke] [--dry_run]
#   export_lite.sh out/glue/rte/depth w0.50d0.50 out/phone --precision int8
#   export_lite.sh --smoke               check that everything works, with a tiny model
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/lib/chain.sh"
arguments=() precision=fp32 smoke='' dry_run=''
while [[ $# -gt 0 ]]; do
    case $1 in
        --precision)
            [[ $# -gt 1 ]] || die "--precision needs a value: fp32, int16 or int8"
            precision=$2 && shift 2
            ;;
        --smoke | --dry_run) declare "${1#--}=yes" && shift ;;
        -*) die "unknown argument '$1'; the options are --precision, --smoke and --dry_run" ;;
        *) arguments+=("$1") && shift ;;
    esac
done
if [[ -n $smoke ]]; then
    model=out/smoke/lite/tiny
else
    [[ ${#arguments[@]} -ge 1 ]] || die "give the model folder of a stage, such as out/glue/rte/depth"
    model=${arguments[0]}
    [[ -d $model || -n $dry_run ]] || die "$model: no such model folder"
fi
subnet=${arguments[1]:-w0.50d0.50}
bundle=${arguments[2]:-$model-$subnet-lite}

chain() {
    step bash "$root/scripts/setup_env.sh"
    step bash "$root/scripts/setup_lite.sh"
    [[ -z $smoke ]] || step "$root/.venv/bin/python" "$root/scripts/lib/tiny_model.py" "$model"
    step "$root/.venv/bin/dynabert" export "$model" --subnet "$subnet" --format lite --precision "$precision" \
        --output_dir "$bundle" --overwrite_output_dir
    step "$root/.venv-lite/bin/python" "$bundle/infer_lite.py" "an example text"
}

run_chain "$dry_run"
