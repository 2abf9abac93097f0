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

# The environment of line $1 first on PATH: the tests call `dynabert` and `python` by name.
within() {
    local bin=$root/.venv-$1/bin
    [[ $1 != "$reference" ]] || bin=$root/.venv/bin
    PATH=$bin:$PATH "${@:2}"
}

# The tests on line $1; its log and how long they took stay in $made.
run_tests() {
    local began=$SECONDS status=0
    within "$1" pytest -q tests/unit tests/parity tests/lines --lines_dir "$made/lines" >"$made/$1.log" 2>&1 || status=$?
    echo $((SECONDS - began)) >"$made/$1.seconds"
    return "$status"
}

# From pytest's last line: how many tests of line $1 have $2.
count() { tail -n 1 "$made/$1.log" | grep -oE "[0-9]+ $2" | grep -oE '[0-9]+' || echo 0; }
versions() { within "$1" python -c 'from importlib.metadata import version as v; print(v("paddlepaddle"), v("paddlenlp"))'; }

for line in $(printf '%s\n' "$reference" "${lines[@]}" | sort -u); do
    bash scripts/setup_env.sh dev --paddle "$line"
    within "$line" python tests/lines/make.py "$made/lines/$line"
done

# All lines at once, each on its share of the cores.
export OMP_NUM_THREADS=$(($(nproc) / ${#lines[@]} > 0 ? $(nproc) / ${#lines[@]} : 1))
declare -A started=()
for line in "${lines[@]}"; do
    run_tests "$line" &
    started[$line]=$!
done
failed=()
for line in "${lines[@]}"; do
    wait "${started[$line]}" || failed+=("$line")
done

for line in "${failed[@]}"; do
    echo "== Paddle $line" >&2
    cat "$made/$line.log" >&2
done
row='%-6s %-8s %-9s %7s %7s %8s %8s\n'
# shellcheck disable=SC2059 # the format is ours
printf "$row" line paddle paddlenlp passed failed skipped seconds
for line in "${lines[@]}"; do
    read -r paddle paddlenlp <<<"$(versions "$line")"
    broken=$(($(count "$line" failed) + $(count "$line" error)))
    # shellcheck disable=SC2059
    printf "$row" "$line" "$paddle" "$paddlenlp" "$(count "$line" passed)" "$broken" "$(count "$line" skipped)" "$(<"$made/$line.seconds")"
done
[[ ${#failed[@]} -eq 0 ]]
