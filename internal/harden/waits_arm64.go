// SPDX-License-Identifier: Apache-2.0

package harden

import "golang.org/x/sys/unix"

// waits are the system calls in which idle threads of a Go program stay.
var waits = []uintptr{
	unix.SYS_FUTEX, unix.SYS_EPOLL_PWAIT, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_PPOLL,
	unix.SYS_RESTART_SYSCALL,
}

const (
	auditArch = unix.AUDIT_ARCH_AARCH64
	x32Bit    = 0x40000000 // no call has such a number
)
