#!/usr/bin/env bash
# The whole chain on the built-in data and backbone, from a bare checkout: set-up, then `dynabert quickstart`.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
bash "$root/scripts/setup_env.sh"
exec "$root/.venv/bin/dynabert" quickstart "$@" # in the caller's folder: paths given are relative to it
