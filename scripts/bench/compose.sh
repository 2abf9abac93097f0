#!/usr/bin/env bash
# How the compression methods add up: each alone at two strengths, and several one after the other in three orders.
#   compose.sh                          snips
#   compose.sh --glue_dir glue_data     and SST-2; about ten hours of one core in all, in parts of minutes
#   compose.sh --task snips --seed 2    a share of it, on this machine; finished parts are skipped
#   compose.sh --part latency           one kind of part; nothing else should run on the machine meanwhile
#   compose.sh --merge other.json       add the results of another machine
#   compose.sh --help                   all options
# Each part uses one core. The results go to docs/compression.json, and from there into the tables and the chart beside it.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib/chain.sh"
bash "$root/scripts/setup_env.sh" >&2
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec python "$root/scripts/lib/compose.py" "$@"
