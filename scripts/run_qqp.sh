#!/usr/bin/env bash
# Quora's question pairs: run_qqp.sh tinybert|bert-base [DATA_DIR] [--smoke] [--dry_run] [options of run_task.sh]
#   run_qqp.sh tinybert                  6 layers of TinyBERT, elastic width alone
#   run_qqp.sh bert-base glue_data/QQP   12 layers of BERT, elastic width and depth
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
