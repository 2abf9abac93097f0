#!/usr/bin/env bash
# The recipe, searched sub-networks, the paper's recipe and models of a fixed size on GLUE, in parts of minutes.
#   results.sh run --glue_dir DIR --bge_dir DIR        what is missing; about twenty hours of two cores, one core a part
#   results.sh run --glue_dir DIR --task rte --seed 1  a share of it, on this machine; finished parts are skipped
#   results.sh trial --glue_dir DIR --task mrpc --task sts-b --seed 1 --seed 2 --set depth.temperature=2
#                                                      what a setting of the recipe gains on the rows that choose
#   results.sh merge --other DIR/parts.json            add the parts of another machine
#   results.sh score --glue_dir DIR                    at the end: read the labels, write the scores and the tables
#   results.sh run --smoke --output_dir out/smoke      check that everything works: a tiny model on a few rows
#   results.sh --help                                  all options
# Parts go to docs/results/, scores to docs/results.json, and from there into the tables of docs/results.md.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib/chain.sh"
bash "$root/scripts/setup_env.sh" >&2
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec python "$root/scripts/lib/results.py" "$@"
