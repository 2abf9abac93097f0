#!/usr/bin/env bash
# Kills a run of all stages, a search and an export over and over, resumes them, and sees that they end as if nothing had
# happened; options go to soak_resume.py.
#   soak_resume.sh                       30 kills: some minutes
#   soak_resume.sh --kills 100 --seed 3
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/chain.sh"
bash "$root/scripts/setup_env.sh"
exec python "$root/scripts/soak_resume.py" "$@"
