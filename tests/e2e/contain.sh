#!/bin/sh
# contain.sh ROOT USER DIRECTORY [HOST:PATH ...] -- COMMAND...
#
# In namespaces of its own, which the caller has made: COMMAND as USER (uid:gid) in ROOT, which is read-only but for the
# folders HOST, seen at PATH. As a container engine runs an image with --read-only --cap-drop all --ulimit rtprio=2,
# but that the right to real time is CAP_SYS_NICE, since raising a limit may need more rights than the caller has.
set -eu
root=$1 user=$2 directory=$3
shift 3

mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 dev "$root/dev"
for device in null zero full random urandom; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir -m 1777 "$root/dev/shm"
mount -t tmpfs shm "$root/dev/shm"
while [ "$1" != -- ]; do
  mount --bind "${1%%:*}" "$root/${1#*:}"
  shift
done
shift
mount -o remount,bind,ro "$root"
exec chroot "$root" setpriv --reuid "${user%:*}" --regid "${user#*:}" --clear-groups --no-new-privs \
  --bounding-set=-all,+sys_nice --inh-caps=-all,+sys_nice --ambient-caps=-all,+sys_nice env --chdir "$directory" "$@"
