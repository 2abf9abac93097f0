#!/usr/bin/env bash
# Executes notebooks and saves their output in them: run_notebooks.sh [--smoke] [--output_dir DIR] [NOTEBOOK...]
#   --smoke           executes copies, with a few steps on a few rows: about a minute each
#   --output_dir DIR  keeps these copies and their models in this folder
set -euo pipefail

die() {
    echo "error: $*" >&2
    exit 2
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
smoke='' output_dir='' notebooks=()
while [[ $# -gt 0 ]]; do
    case $1 in
        --smoke) smoke=yes && shift ;;
        --output_dir)
            [[ $# -gt 1 ]] || die "$1 needs a value"
            output_dir=$2 && shift 2
            ;;
        -*) die "unknown argument '$1'; the options are --smoke and --output_dir" ;;
        *)
            [[ -f $1 ]] || die "$1: no such notebook"
            notebooks+=("$1") && shift
            ;;
    esac
done
[[ -z $output_dir || -n $smoke ]] || die "--output_dir needs --smoke: a full run saves the output in the notebooks"
[[ ${#notebooks[@]} -gt 0 ]] || notebooks=("$root"/notebooks/*.ipynb)

export PATH="$root/.venv/bin:$PATH"
python -c 'import ipykernel, nbclient' 2>/dev/null || die "nbclient or ipykernel is missing: run 'bash scripts/setup_env.sh dev'"
folder=$output_dir
if [[ -z $folder ]]; then
    folder=$(mktemp -d) # empty, so that no stage counts as finished
    trap 'rm -rf "$folder"' EXIT
fi
if [[ -n $smoke ]]; then
    export DYNABERT_SMOKE=1
    mkdir -p "$folder"
    cp "${notebooks[@]}" "$folder"
    notebooks=("${notebooks[@]##*/}")
    notebooks=("${notebooks[@]/#/$folder/}")
fi
for notebook in "${notebooks[@]}"; do
    echo "+ $notebook" >&2
    python - "$notebook" "$folder" <<'END'
import sys

import nbformat
from nbclient import NotebookClient

path, folder = sys.argv[1:]
notebook = nbformat.read(path, as_version=4)
resources = {"metadata": {"path": folder}}
NotebookClient(notebook, timeout=None, resources=resources, record_timing=False, coalesce_streams=True).execute()
nbformat.write(notebook, path)
END
done
