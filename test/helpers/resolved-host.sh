#!/bin/bash
# A host with systemd-resolved, D-Bus and polkit of its own, out of programs that are installed nowhere: for a network namespace.
# resolved-host.sh FOLDER PROGRAMS UPSTREAM: prints "started", and goes on until it is ended, with all that it started.
# What is mounted is mounted for these processes alone; whoever joins their mount namespace sees that host.
set -euo pipefail
folder=$1 programs=$2 upstream=$3
[ "${PRIVATE:-}" = yes ] || PRIVATE=yes exec unshare --mount --pid --fork --kill-child --mount-proc --propagation private "$0" "$@"

mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/dbus /run/systemd/resolved.conf.d
for file in passwd group; do cp "/etc/$file" "$folder/$file"; done
printf '%s\n' systemd-resolve:x:71053:71053::/:/usr/sbin/nologin pilot-tun:x:71054:71054::/:/usr/sbin/nologin >>"$folder/passwd"
printf '%s\n' systemd-resolve:x:71053: pilot-tun:x:71054: >>"$folder/group"
echo "nameserver 127.0.0.53" >"$folder/resolv.conf"
grep -q ^polkitd: "$folder/passwd" || echo polkitd:x:71055:71055::/:/usr/sbin/nologin >>"$folder/passwd"
grep -q ^polkitd: "$folder/group" || echo polkitd:x:71055: >>"$folder/group"
for file in passwd group resolv.conf; do mount --bind "$folder/$file" "$(realpath "/etc/$file")"; done
# polkit's folder of actions, and of rules that packages bring: these are $folder/rules.
mkdir -p "$folder/rules" "$folder/polkit"
mount -t tmpfs -o mode=755 tmpfs "$folder/polkit"
mkdir -p "$folder/polkit/rules.d" "$folder/polkit/actions"
mount --bind "$folder/rules" "$folder/polkit/rules.d"
mount --bind "$programs/usr/share/polkit-1/actions" "$folder/polkit/actions"
mkdir -p /usr/share/polkit-1 # an empty folder is all that stays behind, where there was none
mount --rbind "$folder/polkit" /usr/share/polkit-1

cat >/run/systemd/resolved.conf.d/lab.conf <<CONF
[Resolve]
DNS=$upstream
FallbackDNS=
LLMNR=no
MulticastDNS=no
DNSSEC=no
CONF
cat >"$folder/bus.conf" <<CONF
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
  </policy>
  <include>$programs/usr/share/dbus-1/system.d/org.freedesktop.resolve1.conf</include>
  <include>$programs/usr/share/dbus-1/system.d/org.freedesktop.PolicyKit1.conf</include>
</busconfig>
CONF

export LD_LIBRARY_PATH="$programs/usr/lib/$(uname -m)-linux-gnu"
"$programs/usr/bin/dbus-daemon" --config-file="$folder/bus.conf" --nofork --nopidfile &
until [ -S /run/dbus/system_bus_socket ]; do sleep 0.05; done
"$programs/usr/lib/polkit-1/polkitd" --no-debug 2>"$folder/polkitd.log" &
# Again whenever it ends, as a service manager would.
while :; do
  "$programs/lib/systemd/systemd-resolved" 2>>"$folder/resolved.log" || true
  sleep 0.2
done &
until [ -S /run/systemd/resolve/io.systemd.Resolve ]; do sleep 0.05; done
echo started
wait
