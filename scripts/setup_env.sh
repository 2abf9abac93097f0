#!/usr/bin/env bash
# Makes the reference environment in .venv at the repository root; `setup_env.sh dev` adds the developers' tools, and
# `setup_env.sh [dev] --paddle 2.6` makes .venv-2.6 with that line of Paddle. PYTHON=... chooses the interpreter.
# A second call only checks a stamp, so that the other scripts can call it every time.
set -euo pipefail

exec </dev/null             # nothing here may wait for an answer
unset PYTHONHOME PYTHONPATH # packages outside of .venv must not pass for installed
export PIP_USER=0 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1

cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$(pwd -P)

say() { echo "setup: $*" >&2; }
die() {
    echo "error: $*" >&2
    exit 1
}

reference=3.1
line=$reference dev=''
while [[ $# -gt 0 ]]; do
    case $1 in
        dev) dev=yes && shift ;;
        --paddle)
            line=${2:-}
            [[ -e requirements/paddle-$line.txt ]] || die "--paddle '$line': there are 2.6, 3.1 and 3.3"
            shift 2
            ;;
        *) die "unknown argument '$1': setup_env.sh takes 'dev' and '--paddle LINE'" ;;
    esac
done

lock=requirements/paddle-$line.txt
locks=("$lock" requirements/demo.txt)
tools=requirements/dev-$line.txt # of a line with other versions than the reference has
[[ -e $tools ]] || tools=requirements/dev.txt
[[ -z $dev ]] || locks+=("$tools")

# Binds the tools that build a source package, too. A URL, because pip splits the value at blanks.
export PIP_CONSTRAINT="file://${root// /%20}/$lock"
name=.venv-$line
[[ $line != "$reference" ]] || name=.venv
venv=$root/$name
stamp=$venv/.stamp           # hashes of all that was installed; written last
incomplete=$venv/.incomplete # there while an install runs: who finds it knows that it was interrupted
log=$venv/install.log

# By running it: a version manager's shim can be on PATH for a Python that is not there.
supported() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; }
minor_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

if [[ -n ${PYTHON:-} ]]; then
    supported "$PYTHON" || die "PYTHON=$PYTHON does not run or is not Python 3.10, 3.11 or 3.12"
fi

# Whole, runnable and in its place: the scripts of an environment that was moved call the old one.
usable() {
    [[ ! -e $incomplete ]] && grep -qsF "$venv" "$venv/bin/activate" && supported "$venv/bin/python" \
        && "$venv/bin/python" -c 'import pip' 2>/dev/null \
        && [[ -z ${PYTHON:-} || $(minor_version "$PYTHON") == "$(minor_version "$venv/bin/python")" ]]
}

up_to_date() {
    local lock
    for lock in "${locks[@]}"; do grep -qsF "$lock" "$stamp" || return 1; done
    [[ -x $venv/bin/dynabert ]] && sha256sum --check --status "$stamp" 2>/dev/null
}

make_venv() {
    local candidate candidates=(python3.12 python3.11 python3.10 python3) python='' without_venv=''
    [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        supported "$candidate" || continue
        if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            python=$candidate
            break
        fi
        without_venv=$candidate
    done
    if [[ -z $python && -n $without_venv ]]; then
        die "$without_venv cannot make virtual environments: on Debian and Ubuntu 'apt-get install python$(minor_version "$without_venv")-venv'"
    fi
    [[ -n $python ]] || die "no Python 3.10, 3.11 or 3.12 found: install one (Debian, Ubuntu: 'apt-get install python3 python3-venv') or name it with PYTHON=..."

    if [[ -L $venv ]]; then
        die "$name is a symbolic link to $(readlink "$venv"), which is not a complete environment made for this folder: remove the link and run this again"
    fi
    say "making $name with $("$python" --version) ($python)"
    rm -rf "$venv/bin" && rm -rf "$venv" # in this order nothing half removed can pass for usable
    mkdir "$venv"
    touch "$incomplete"
    "$python" -m venv "$venv" >"$log" 2>&1 || die "making $name failed; see $name/install.log"
}

# pip's words go to the log. The terminal gets a line for every download, after the megabytes fetched so far.
pip_install() {
    "$venv/bin/python" -m pip install --no-deps --use-pep517 --progress-bar "$bar" "$@" 2>&1 | progress
}
bar=off # the other choice, "raw" (lines "Progress BYTES of BYTES"), is unknown to pip before 24.1
progress() {
    local line name='' kilobytes=0 size=0 shown=0 bytes
    while read -r line; do
        if [[ $line =~ ^Progress\ ([0-9]+)\ of\ ([0-9]+)$ ]]; then
            bytes=${BASH_REMATCH[1]}
            ((bytes - shown >= 25000000 && bytes < BASH_REMATCH[2])) || continue
            shown=$bytes
            say "$(printf '%4d MB  %s' $(((kilobytes - size + bytes / 1000) / 1000)) "$name")"
            continue
        fi
        echo "$line" >>"$log"
        if [[ $line =~ ^(Downloading|Using\ cached)\ ([^\ ]+)\ \(([0-9.]+)\ (bytes|kB|MB)\)$ ]]; then
            [[ ${BASH_REMATCH[2]} != *.metadata ]] || continue
            name=${BASH_REMATCH[2]##*/} size=$(in_kilobytes "${BASH_REMATCH[3]}" "${BASH_REMATCH[4]}") shown=0
            say "$(printf '%4d MB  %s (%s %s)' $((kilobytes / 1000)) "$name" "${BASH_REMATCH[3]}" "${BASH_REMATCH[4]}")"
            kilobytes=$((kilobytes + size))
        fi
        case $line in
            'Installing collected'*) say "$(printf '%4d MB  all fetched: unpacking' $((kilobytes / 1000)))" ;;
            ERROR*) echo "$line" >&2 ;;
        esac
    done
}
in_kilobytes() {
    local whole=${1%.*} tenth=0
    [[ $1 != *.* ]] || tenth=${1#*.}
    case $2 in
        MB) echo $((whole * 1000 + tenth * 100)) ;;
        kB) echo "$whole" ;;
        *) echo 0 ;;
    esac
}

# Paddle needs libgomp.so.1, which a bare Debian or Ubuntu lacks.
has_libgomp() {
    [[ $(uname -s) != Linux ]] || "$venv/bin/python" -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null
}
no_libgomp="Paddle needs libgomp.so.1, which this machine lacks: on Debian and Ubuntu 'apt-get install libgomp1'"

usable && up_to_date && exit 0

usable || make_venv
libgomp=system
if ! has_libgomp; then
    libgomp=scikit-learn
    grep -q "^$libgomp==" "${locks[@]}" || die "$no_libgomp"
    say "this machine has no libgomp.so.1: Paddle will use the one that $libgomp ships"
fi
touch "$incomplete"
rm -f "$stamp"
say "installing ${locks[*]} (the first time about 600 MB and 2 minutes)"
# The lock's own pip first: the one that comes with Python 3.10 cannot build every source package.
pip_install $(grep -E '^(pip|setuptools)==' "$lock") || die "installing pip failed; see $name/install.log"
bar=raw
pip_install "${locks[@]/#/--requirement=}" || die "installing the packages failed; see $name/install.log"
# The build backend is the setuptools of the lock: nothing more to fetch.
pip_install --no-build-isolation --editable . || die "installing this package failed; see $name/install.log"
[[ $libgomp == system ]] || "$venv/bin/python" scripts/lib/provide_libgomp.py || die "$no_libgomp"
"$venv/bin/python" -c 'import paddle' >>"$log" 2>&1 || die "paddle does not import; see the end of $name/install.log"
sha256sum "${locks[@]}" setup.py "$venv/pyvenv.cfg" >"$stamp"
rm "$incomplete"
say "ready: $name, $("$venv/bin/python" --version)"
