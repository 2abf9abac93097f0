#!/usr/bin/env bash
# Soak test of `dynabert serve`: ten minutes with killed clients, bad requests, reloads and a final SIGTERM, and as long
# without them, in which the memory must not grow by more than 5 % after the first minute.
#   soak_serve.sh BUNDLE [MINUTES]
set -euo pipefail

[[ $# -ge 1 ]] || { echo "usage: soak_serve.sh BUNDLE [MINUTES]" >&2; exit 2; }
here=$(dirname "${BASH_SOURCE[0]}")
python "$here/serve.py" "$1" --minutes "${2:-10}" --reload_seconds 60
python "$here/serve.py" "$1" --minutes "${2:-10}" --reload_seconds 0 --no_bad --max_growth 5
