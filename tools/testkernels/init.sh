#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The first program of the machine: makes the host that the tests expect, runs
# what the kernel's command line names, and powers off. Lines that begin with
# @@ are for the tool that started the machine.

# shellcheck disable=SC2317 # busybox
# There is memory enough to collect garbage seldom, which is dear to emulate.
export GOGC=400
export PATH=/bin:/usr/bin:/tests HOME=/root TMPDIR=/tmp SECURITY_EXPORTER_TEST_MACHINE=1 SECURITY_EXPORTER_TEST_PROGRAM=/tests/security-exporter

# The root of an initramfs cannot be left by pivot_root(2): go to a tmpfs.
if [ ! -e /moved ]; then
	mkdir /new
	mount -t tmpfs -o mode=755 root /new
	for entry in bin dev etc home init lib opt proc root run srv sys tests tmp usr var; do mv "/$entry" /new/ 2>/dev/null || cp -a "/$entry" /new/; done
	: >/new/moved
	exec /new/bin/busybox switch_root /new /init
fi

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/shm
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
mount -t securityfs securityfs /sys/kernel/security
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ifconfig lo 127.0.0.1 up
insmod /lib/veth.ko
hostname machine
read -r uptime _ </proc/uptime
echo "@@ kernel $(uname -r) $uptime"

read -r line </proc/cmdline
argument() {
	for word in $line; do
		case $word in "$1="*) echo "${word#*=}" ;; esac
	done
}

# runs are suite/policy/tests, in the order in which they are to happen
for run in $(argument runs | tr , ' '); do
	suite=${run%%/*} tests=${run#*/}
	policy=${tests%%/*} tests=${tests#*/}
	echo "@@ begin $suite $policy"
	read -r before _ </proc/uptime
	(cd /tmp && SECURITY_EXPORTER_TEST_HOOK_POLICY=$policy timeout 1500 "/tests/$suite.test" -test.v -test.timeout=1480s "-test.run=$tests") 2>&1
	code=$?
	read -r after _ </proc/uptime
	echo "@@ end $suite $policy $code $before $after"
done
echo "@@ done"
poweroff -f
