#!/usr/bin/env bash
# Sentence embeddings: sub-networks of minilm-l6 on STS-B and on retrieval, and vectors against sentence-transformers'.
#   results_embedding.sh --glue_dir glue_data                 everything, one seed after the other
#   results_embedding.sh --glue_dir glue_data --part train --seed 2
#                                                             a share of it, on this machine; finished parts are skipped
#   results_embedding.sh --part vectors --reference_python venv/bin/python
#                                                             200 texts against sentence-transformers, which that Python has
#   results_embedding.sh --merge other.json                   add the results of another machine
#   results_embedding.sh --help                               all options
# Each part uses one core. The results go to docs/embeddings.json, and from there into the tables of docs/embeddings.md.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib/chain.sh"
bash "$root/scripts/setup_env.sh" >&2
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec python "$root/scripts/lib/embedding.py" "$@"
