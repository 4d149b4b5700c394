#!/usr/bin/env bash
# What the tests use from the system. As root on Debian it is installed where it is missing; elsewhere it is named,
# and the tests that need it are skipped. CI and `make test` begin with it.
set -euo pipefail

missing=()
want() { # PACKAGE COMMAND...: the package, unless the command succeeds
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}
one_of() { for name in "$@"; do command -v "$name" && return; done; return 1; }
python() {
  for candidate in "${PYTHON:-python3.11}" python3.11 python3.12 python3.13 python3; do
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' && "$candidate" -c "$1" && return
  done
  return 1
}

PATH=$PATH:/usr/sbin
want make one_of make
want git one_of git
want curl one_of curl
want chromium one_of chromium chromium-browser google-chrome
want nginx-light one_of nginx
want openssl one_of openssl
want strace one_of strace
want libfaketime compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1'
want python3 python 'import sys'
want python3-venv python 'import ensurepip, venv'

[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing from Debian: ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
  echo "not installed: ${missing[*]} (Debian's names; the tests that need one are skipped)" >&2
fi
