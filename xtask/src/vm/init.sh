#!/bin/busybox sh
# First program of the guest. The host puts a configuration beside it: /kcap-vm/config (MARK,
# CGROUP, PREEMPT, as shell assignments) and /kcap-vm/program (what to run, as a shell script).
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root TERM=dumb
. /kcap-vm/config

finish() {
    echo "$MARK $1"
    poweroff -f
}
need() { "$@" || { echo "kcap-vm: cannot $*"; finish 125; }; }

need mount -t proc proc /proc
need mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
# No file systems of their own: the host's files may lie there.
chmod 1777 /tmp /var/tmp
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
ln -sf /proc/self/fd /dev/fd
mount -t securityfs securityfs /sys/kernel/security 2>/dev/null
need mount -t debugfs debugfs /sys/kernel/debug
need mount -t tracefs tracefs /sys/kernel/tracing
need mount -t bpf bpf /sys/fs/bpf

controllers() {
    need mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    while read -r name _ _ on; do
        [ "$on" = 1 ] || continue
        mkdir "/sys/fs/cgroup/$name"
        # Newer kernels list controllers that version 1 no longer offers (cpuset on 6.12).
        mount -t cgroup -o "$name" cgroup "/sys/fs/cgroup/$name" 2>/dev/null ||
            rmdir "/sys/fs/cgroup/$name"
    done </proc/cgroups
    mkdir /sys/fs/cgroup/systemd
    need mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
}
case $CGROUP in
v2) need mount -t cgroup2 cgroup2 /sys/fs/cgroup ;;
v1) controllers ;;
hybrid)
    controllers
    mkdir /sys/fs/cgroup/unified
    need mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
    ;;
esac

ip link set lo up
hostname guest

grep -q "($PREEMPT)" /sys/kernel/debug/sched/preempt || {
    echo "kcap-vm: asked for preempt=$PREEMPT, but the kernel has" \
        "$(cat /sys/kernel/debug/sched/preempt 2>&1)"
    finish 125
}

sh /kcap-vm/program </dev/null
finish $?
