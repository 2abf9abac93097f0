#!/usr/bin/env bash
# Set-up, style and tests on the reference, then the short tests on the other lines of Paddle. Arguments go to pytest, with
# paths relative to the repository root; the other lines are left out then.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup_env.sh dev
within() { PATH="$PWD/.venv/bin:$PATH" "$@"; } # the tests call `dynabert` and `python` by name
within ruff check .
within ruff format --check .
within lint-imports
within pytest "$@"
[[ $# -gt 0 ]] || bash scripts/test_matrix.sh 2.6 3.3
