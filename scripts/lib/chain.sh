# Sourced by scripts that define a function `chain`, which passes each command of the chain to `step`.
# `value NAME COMMAND...` prints the output of COMMAND, for use in later commands; a dry run prints NAME instead.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
export PATH=$root/.venv/bin:$PATH

die() {
    echo "error: $*" >&2
    exit 2
}

show() { printf '+ %s\n' "$(printf '%q ' "$@")"; }

# Prints all commands of the chain and, unless $1 (dry run) is set, runs them.
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
