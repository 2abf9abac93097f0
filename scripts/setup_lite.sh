#!/usr/bin/env bash
# Makes the environment of Paddle Lite's converter in .venv-lite at the repository root: its wheels are not for the
# Python that Paddle runs on. PYTHON_LITE=... chooses the interpreter. A second call only checks a stamp.
set -euo pipefail

exec </dev/null             # nothing here may wait for an answer
unset PYTHONHOME PYTHONPATH # packages outside of .venv-lite must not pass for installed
export PIP_USER=0 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1

cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$(pwd -P)
venv=$root/.venv-lite
stamp=$venv/.stamp           # what was installed; written last
incomplete=$venv/.incomplete # there while an install runs: who finds it knows that it was interrupted
log=$venv/install.log

say() { echo "setup: $*" >&2; }
die() {
    echo "error: $*" >&2
    exit 1
}

[[ $# == 0 ]] || die "unknown argument '$1': setup_lite.sh takes none; PYTHON_LITE=... names an interpreter"

# By running it: a version manager's shim can be on PATH for a Python that is not there.
minor_version() { "$1" -E -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }
supported() { [[ $(minor_version "$1") =~ ^3\.(7|10)$ ]]; }

if [[ -n ${PYTHON_LITE:-} ]]; then
    supported "$PYTHON_LITE" || die "PYTHON_LITE=$PYTHON_LITE does not run or is not Python 3.10 or 3.7: name one that is"
fi

packages() {
    case $1 in
        3.10) echo paddlelite==2.13rc0 numpy==1.26.4 ;;
        3.7) echo paddlelite==2.12 numpy==1.21.6 ;;
    esac
}

# Whole, runnable and in its place: an environment that was moved has scripts that call the old one.
up_to_date() {
    [[ ! -e $incomplete ]] && grep -qsF "$venv" "$venv/bin/activate" && supported "$venv/bin/python" \
        && [[ -z ${PYTHON_LITE:-} || $(minor_version "$PYTHON_LITE") == "$(minor_version "$venv/bin/python")" ]] \
        && [[ $(cat "$stamp" 2>/dev/null) == "$(packages "$(minor_version "$venv/bin/python")")" ]]
}

find_python() {
    local version candidate found=() without_venv=''
    if [[ -n ${PYTHON_LITE:-} ]]; then
        found=("$PYTHON_LITE")
    else
        for version in 3.10 3.7; do
            found+=("python$version" /usr/bin/"python$version" /usr/local/bin/"python$version")
            # Patterns without a match stay as they are, and do not run.
            found+=("${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version".*/bin/python)
            found+=("$HOME"/.pyenv/versions/"$version".*/bin/python)
            found+=(/opt/python*/bin/"python$version" /opt/python*/*/bin/"python$version")
        done
    fi
    for candidate in "${found[@]}"; do
        supported "$candidate" || continue
        if "$candidate" -E -c 'import ensurepip, venv' 2>/dev/null; then
            python=$candidate
            return
        fi
        without_venv=$candidate
    done
    if [[ -n $without_venv ]]; then
        die "$without_venv cannot make virtual environments: on Debian and Ubuntu 'apt-get install python$(minor_version "$without_venv")-venv'"
    fi
    die "no Python 3.10 or 3.7 found, which paddlelite's wheels need: install one (Ubuntu 22.04: 'apt-get install python3.10 python3.10-venv'; anywhere: 'pyenv install 3.10') or name it with PYTHON_LITE=..."
}

up_to_date && exit 0

case "$(uname -s) $(uname -m)" in
    'Linux x86_64') ;;
    *) die "paddlelite has no wheel for $(uname -s) on $(uname -m): convert on a Linux x86-64 machine" ;;
esac
find_python
version=$(minor_version "$python")
say "making .venv-lite with Python $version ($python)"
rm -rf "$venv/bin" && rm -rf "$venv" # in this order nothing half removed can pass for usable
mkdir "$venv"
touch "$incomplete"
"$python" -E -m venv "$venv" >"$log" 2>&1 || die "making .venv-lite failed; see .venv-lite/install.log"
echo '*' >"$venv/.gitignore"
read -ra wanted <<<"$(packages "$version")"
say "installing ${wanted[*]} (about 120 MB)"
"$venv/bin/python" -m pip install --no-deps --only-binary :all: --progress-bar off "${wanted[@]}" >>"$log" 2>&1 \
    || die "installing ${wanted[*]} failed; see .venv-lite/install.log, check the network, and run this again"
"$venv/bin/python" -c 'import numpy; from paddlelite import lite; lite.Opt()' >>"$log" 2>&1 \
    || die "paddlelite does not import ('apt-get install libgomp1' if it misses libgomp.so.1); see .venv-lite/install.log"
packages "$version" >"$stamp"
rm "$incomplete"
say "ready: .venv-lite, Python $version, ${wanted[*]}"
