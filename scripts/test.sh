#!/usr/bin/env bash
# Set-up, style and tests on the reference; arguments go to pytest, with paths relative to the repository root.
# test_matrix.sh runs the short tests on the other lines of Paddle.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup_env.sh dev
export PATH="$PWD/.venv/bin:$PATH" # the tests call `dynabert` and `python` by name
ruff check .
ruff format --check .
exec pytest "$@"
