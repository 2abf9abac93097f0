#!/usr/bin/env bash
# The tests, within 10 minutes on 2 cores after the set-up: style, layers, types, unit and parity tests, one short chain.
#   test.sh                      what CI runs
#   test.sh --full               all tests, the two other lines of Paddle and the documents' site: within 35 minutes
#   test.sh --gpu                what must be true on a GPU, in the environment that .venv is: it installs nothing
#   test.sh [--full] ARGUMENTS   style, and pytest with these arguments; paths are relative to the repository root
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ ${1:-} == --gpu ]]; then
    PATH="$PWD/.venv/bin:$PATH" exec pytest tests/gpu "${@:2}"
fi
full=()
[[ ${1:-} != --full ]] || { full=(--full) && shift; }
bash scripts/setup_env.sh dev
within() { PATH="$PWD/.venv/bin:$PATH" "$@"; } # the tests call `dynabert` and `python` by name
within ruff check .
within ruff format --check .
within lint-imports

if [[ $# -gt 0 ]]; then
    within pytest "${full[@]}" "$@"
    exit
fi
within mypy
# A worker for each core, with one thread each; a file's tests stay together, and share its fixtures. The long ones come
# first, so that no worker waits for the other at the end.
OMP_NUM_THREADS=1 within pytest -n "$(nproc)" --dist loadscope --no-loadscope-reorder -m "not alone" "${full[@]}" \
    tests/pipeline tests/lines tests/parity tests/unit
[[ ${#full[@]} -gt 0 ]] || exit 0
within pytest -m alone --full
bash scripts/test_matrix.sh 2.6 3.3
site=$(mktemp -d)
within mkdocs build --strict --site-dir "$site"
rm -rf "$site"
