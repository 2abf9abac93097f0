#!/usr/bin/env bash
# From a fresh checkout to a trained supernet on the built-in data and backbone: set-up, then `dynabert quickstart`.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
bash "$root/scripts/setup_env.sh"
exec "$root/.venv/bin/dynabert" quickstart "$@" # in the current folder, for relative paths
