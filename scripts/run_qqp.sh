#!/usr/bin/env bash
# Runs Quora Question Pairs with one of two backbones:
# run_qqp.sh tinybert|bert-base [DATA_DIR] [--smoke] [--dry_run] [options of run_task.sh]
#   run_qqp.sh tinybert                  TinyBERT with 6 layers, elastic width only
#   run_qqp.sh bert-base glue_data/QQP   BERT with 12 layers, elastic width and depth
set -euo pipefail

case ${1:-} in
    tinybert) chain=(qqp_tinybert --last_stage width --subnet w0.50d1.00) ;;
    bert-base) chain=(glue/qqp) ;;
    *)
        echo "error: '${1:-}' is not a backbone for QQP: tinybert bert-base" >&2
        exit 2
        ;;
esac
shift
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
exec bash "$root/scripts/run_task.sh" "${chain[0]}" "$@" "${chain[@]:1}" --samples "$root/tests/samples/glue/QQP"
