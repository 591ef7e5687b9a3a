# Shared by the scripts of this folder; sourced, not run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\033[1m==> %s\033[0m\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# install_packages KIND...: installs what is missing of these kinds in scripts/packages, and says so first.
install_packages() {
  local wanted missing=() package sudo=
  wanted=$(awk -v kinds=" $* " '!/^#/ && index(kinds, " " $1 " ") { print $2 }' scripts/packages)
  for package in $wanted; do
    dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  command -v apt-get >/dev/null || fail "this script installs Debian packages with apt-get, which is not here; install by hand: ${missing[*]}"
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "not root and no sudo; as root, type: apt-get install ${missing[*]}"
    sudo=sudo
  fi
  say "Installing ${#missing[@]} Debian packages: ${missing[*]}"
  $sudo apt-get update -qq
  # Servers that these packages bring are started by the scripts, not by the system: Debian asks this file.
  local policy=/usr/sbin/policy-rc.d ours=no
  if [ ! -e $policy ]; then
    ours=yes
    printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null
    $sudo chmod 755 $policy
  fi
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    { [ $ours = no ] || $sudo rm -f $policy; fail "apt-get could not install the packages above; see its message"; }
  [ $ours = no ] || $sudo rm -f $policy
}

# build PRESET TARGET...: configures once, builds what has changed.
build() {
  local preset=$1
  shift
  if [ ! -f "build/$preset/build.ninja" ]; then
    say "Configuring (preset $preset)"
    mkdir -p "build/$preset"
    cmake --preset "$preset" >"build/$preset/configure.log" 2>&1 ||
      { tail -40 "build/$preset/configure.log" >&2; fail "cmake failed; the whole log is build/$preset/configure.log"; }
  fi
  say "Building (preset $preset)"
  cmake --build "build/$preset" ${1:+--target "$@"}
}
