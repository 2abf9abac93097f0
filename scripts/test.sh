#!/usr/bin/env bash
# Set-up, style and tests on the reference, then the short tests on the other lines of Paddle. With arguments, which go to
# pytest with paths relative to the repository root, the reference alone.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup_env.sh dev
others=$PATH
export PATH="$PWD/.venv/bin:$PATH" # the tests call `dynabert` and `python` by name
ruff check .
ruff format --check .
[[ $# -eq 0 ]] || exec pytest "$@"
pytest
PATH=$others exec bash scripts/test_matrix.sh 2.6 3.3
