#!/usr/bin/env bash
# Installs what the report's tests look at its page with, where it is missing: headless Chromium and a Chinese font.
# CHROMIUM=... names a browser that is not on PATH. A second call only looks.
set -euo pipefail

say() { echo "setup: $*" >&2; }
die() {
    echo "error: $*" >&2
    exit 1
}

[[ $# == 0 ]] || die "unknown argument '$1': setup_browser.sh takes none; CHROMIUM=... names a browser"
if [[ -n ${CHROMIUM:-} ]]; then
    command -v "$CHROMIUM" >/dev/null || die "CHROMIUM=$CHROMIUM is no program: name one, or unset it"
fi

has_browser() { command -v "${CHROMIUM:-chromium}" >/dev/null; }
has_font() { command -v fc-list >/dev/null && [[ -n $(fc-list :lang=zh-cn) ]]; }

missing=()
has_browser || missing+=(chromium)
has_font || missing+=(fontconfig fonts-noto-cjk)
[[ ${#missing[@]} -gt 0 ]] || exit 0

if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
    die "missing: ${missing[*]}; install them (Debian: 'sudo apt-get install ${missing[*]}'; elsewhere Chromium or Chrome, named with CHROMIUM=..., and a Chinese font)"
fi
say "installing ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
{ apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } </dev/null >"$log" 2>&1 \
    || die "installing ${missing[*]} failed: $(grep '^E: ' "$log" | head -n 1); check the network, and run this again"
# Ubuntu's package of that name only points to a snap, which root in a container cannot run.
has_browser && "${CHROMIUM:-chromium}" --version >/dev/null 2>&1 \
    || die "the chromium that apt-get installs does not run here: install Chrome, and name it with CHROMIUM=..."
has_font || die "the font that apt-get has installed is not found: see 'fc-list :lang=zh-cn'"
say "ready: $("${CHROMIUM:-chromium}" --version), a Chinese font"
