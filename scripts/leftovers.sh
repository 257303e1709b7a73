# Finds and removes what a run left behind. Sourced after lib.sh.
#
# Whatever the run starts inherits PILOT_TUN_TEST_RUN=$run_id, so a process is recognised by its environment and never
# by its name. Namespaces and interfaces are compared with those of the beginning; a namespace of the lab carries the
# process id of the run that owns it, and those of other live runs are let be.

run_id="$$.$(date +%s%N)"

leftovers_watch() {
  namespaces_before="$(list_namespaces)"
  interfaces_before="$(list_interfaces)"
}

# Ends and removes what is left, and names it; true when nothing was.
leftovers_check() {
  local clean=0 item
  for item in $(list_processes); do
    say "left behind: process $item ($(tr '\0' ' ' <"/proc/$item/cmdline" 2>/dev/null || true))"
    kill -KILL "$item" 2>/dev/null || true
    clean=1
  done
  for item in $(comm -13 <(echo "$namespaces_before") <(list_namespaces)); do
    owned_by_another_run "$item" && continue
    say "left behind: namespace $item"
    ip netns del "$item" || true
    clean=1
  done
  for item in $(comm -13 <(echo "$interfaces_before") <(list_interfaces)); do
    say "left behind: interface $item"
    clean=1
  done
  return "$clean"
}

# Processes of the run that have not ended; one that is just ending is given a moment.
list_processes() {
  local found attempt
  for attempt in 1 2 3 4 5 6 7 8 9 10; do
    found="$(grep -lzs "^PILOT_TUN_TEST_RUN=$run_id\$" /proc/[0-9]*/environ | cut -d/ -f3 || true)"
    [ -n "$found" ] || return 0
    sleep 0.1
  done
  echo "$found"
}

list_namespaces() { { ls /run/netns 2>/dev/null || true; } | sort; }

list_interfaces() { ip -o link show 2>/dev/null | cut -d: -f2 | tr -d ' ' | sort; }

owned_by_another_run() {
  [[ $1 =~ ^pt-([0-9]+)- ]] && [ -d "/proc/${BASH_REMATCH[1]}" ]
}
