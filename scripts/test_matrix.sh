#!/usr/bin/env bash
# The short tests on lines of Paddle, each in the environment of its own lock: unit and parity tests, a small chain with
# every export, and on each line the folders and bundles that the others have made.
#   test_matrix.sh               2.6, 3.1 and 3.3
#   test_matrix.sh 3.3           that one, and the reference's folder on it
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$(pwd -P)
reference=3.1
lines=("$@")
[[ $# -gt 0 ]] || lines=(2.6 3.1 3.3)
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
declare -A seconds=() failed=()

# The environment of line $1 first on PATH: the tests call `dynabert` and `python` by name.
within() {
    local bin=$root/.venv-$1/bin
    [[ $1 != "$reference" ]] || bin=$root/.venv/bin
    PATH=$bin:$PATH "${@:2}"
}

# A step of line $1, on its clock.
step() {
    local began=$SECONDS
    within "$@" || failed[$1]=yes
    seconds[$1]=$((${seconds[$1]:-0} + SECONDS - began))
}

# From pytest's last line: how many tests of line $1 have $2.
count() { tail -n 1 "$made/$1.log" | grep -oE "[0-9]+ $2" | grep -oE '[0-9]+' || echo 0; }
versions() { within "$1" python -c 'from importlib.metadata import version as v; print(v("paddlepaddle"), v("paddlenlp"))'; }

for line in $(printf '%s\n' "$reference" "${lines[@]}" | sort -u); do
    bash scripts/setup_env.sh dev --paddle "$line" # outside of `step`: without an environment there is nothing to test
    step "$line" python tests/lines/make.py "$made/lines/$line"
done
run_tests() { pytest -q tests/unit tests/parity tests/lines --lines_dir "$made/lines" 2>&1 | tee "$made/$1.log"; }
for line in "${lines[@]}"; do
    echo "== Paddle $line" >&2
    step "$line" run_tests "$line"
done

row='%-6s %-8s %-9s %7s %7s %8s %8s\n'
# shellcheck disable=SC2059 # the format is ours
printf "$row" line paddle paddlenlp passed failed skipped seconds
for line in "${lines[@]}"; do
    read -r paddle paddlenlp <<<"$(versions "$line")"
    broken=$(($(count "$line" failed) + $(count "$line" error)))
    # shellcheck disable=SC2059
    printf "$row" "$line" "$paddle" "$paddlenlp" "$(count "$line" passed)" "$broken" "$(count "$line" skipped)" "${seconds[$line]}"
done
[[ ${#failed[@]} -eq 0 ]]
