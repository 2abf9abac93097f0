#!/usr/bin/env bash
# Executes the ARM file of Paddle Lite bundles under emulation, and compares its logits with Paddle's and with those of
# the x86 file on Lite's x86 runtime, in each precision. Emulation says nothing about speed.
#   run_arm.sh MODEL_DIR [--runtime DIR] [--num_texts N] [--output_dir DIR] [--dry_run]
#
# It needs qemu-aarch64 and aarch64-linux-gnu-g++ (Debian and Ubuntu: apt-get install qemu-user g++-aarch64-linux-gnu)
# and, in DIR (default: ../shared/lite_arm beside this checkout), `include/` and `lib/libpaddle_light_api_shared.so` of
# Paddle Lite for aarch64 Linux. To build these takes about 25 minutes on two cores: in a checkout of Paddle Lite, at the
# tag of the converter's version (v2.13-rc), `mkdir build && cd build`, then
#   cmake -G Ninja .. -DCMAKE_BUILD_TYPE=Release -DWITH_MKLDNN=OFF -DWITH_TESTING=OFF -DLITE_WITH_ARM=ON \
#     -DLITE_WITH_X86=OFF -DARM_TARGET_ARCH_ABI=armv8 -DARM_TARGET_OS=armlinux -DARM_TARGET_LANG=gcc \
#     -DLITE_BUILD_EXTRA=ON -DLITE_WITH_LOG=ON -DLITE_WITH_EXCEPTION=OFF -DLITE_ON_TINY_PUBLISH=ON \
#     -DWITH_ARM_DOTPROD=ON && ninja publish_inference
# and take both from the folder `inference_lite_lib*/cxx`.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/../lib/chain.sh"
model='' runtime=$root/../shared/lite_arm num_texts=100 output_dir='' dry_run=''
while [[ $# -gt 0 ]]; do
    case $1 in
        --runtime | --num_texts | --output_dir)
            [[ $# -gt 1 ]] || die "$1 needs a value"
            declare "${1#--}=$2" && shift 2
            ;;
        --dry_run) dry_run=yes && shift ;;
        -*) die "unknown argument '$1'; the options are --runtime, --num_texts, --output_dir and --dry_run" ;;
        *)
            [[ -z $model ]] || die "give one model folder, not '$1' as well"
            model=$1 && shift
            ;;
    esac
done
[[ -n $model ]] || die "give a model folder, such as out/quickstart/finetune or an extracted one"
output_dir=${output_dir:-$model-arm}
if [[ -z $dry_run ]]; then
    [[ -f $model/dynabert.json ]] || die "$model: no model folder"
    [[ -f $runtime/lib/libpaddle_light_api_shared.so ]] \
        || die "$runtime: no lib/libpaddle_light_api_shared.so: the first lines of run_arm.sh say how to build it"
    for command in qemu-aarch64 aarch64-linux-gnu-g++; do
        command -v "$command" >/dev/null || die "$command is missing: apt-get install qemu-user g++-aarch64-linux-gnu"
    done
fi

chain() {
    local precision bundles=()
    step bash "$root/scripts/setup_env.sh"
    step bash "$root/scripts/setup_lite.sh"
    step mkdir -p "$output_dir"
    for precision in fp32 int16 int8; do
        bundles+=("$output_dir/$precision")
        step dynabert export "$model" --format lite --precision "$precision" --output_dir "$output_dir/$precision" \
            --overwrite_output_dir
    done
    step python "$root/scripts/lib/compare_arm.py" class "$root/docs/lite.md" "$output_dir/classifier.h"
    step aarch64-linux-gnu-g++ -std=c++11 -O1 -I"$runtime/include" -I"$output_dir" "$root/scripts/bench/run_arm.cc" \
        -o "$output_dir/run_arm" -L"$runtime/lib" -lpaddle_light_api_shared -Wl,-rpath,"$runtime/lib" -lpthread
    step python "$root/scripts/lib/compare_arm.py" compare "$model" "$output_dir/run_arm" "${bundles[@]}" \
        --num_texts "$num_texts"
}

run_chain "$dry_run"
