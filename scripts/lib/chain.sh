# Sourced by scripts that run a chain of commands, which their function `chain` gives one by one to `step`.
# Where a later command needs what an earlier one has found out, `value NAME COMMAND...` prints it.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
export PATH=$root/.venv/bin:$PATH

die() {
    echo "error: $*" >&2
    exit 2
}

show() { printf '+ %s\n' "$(printf '%q ' "$@")"; }

# Shows the whole chain, then, unless $1 is not empty, runs it.
run_chain() {
    step() { show "$@"; }
    value() { echo "$1"; }
    chain
    [[ -z $1 ]] || exit 0
    step() {
        show "$@" >&2
        "$@"
    }
    value() { "${@:2}"; }
    chain
}
