// SPDX-License-Identifier: Apache-2.0

package harden

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data (seccomp(2)).
const (
	offsetNumber = 0
	offsetArch   = 4
)

// execFilter is a classic BPF program that answers execve and execveat with
// EPERM and allows the rest. Every call of another architecture (int 0x80 and
// x32 on amd64, 32-bit ARM) has EPERM too: a Go program makes none, and it
// would be a way around. A list of call names, as the libraries for seccomp
// take it, leaves other architectures alone.
func execFilter() []unix.SockFilter {
	const (
		load  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		above = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		done  = unix.BPF_RET | unix.BPF_K
	)
	return []unix.SockFilter{
		{Code: load, K: offsetArch},
		{Code: equal, K: auditArch, Jt: 0, Jf: 4},
		{Code: load, K: offsetNumber},
		{Code: above, K: x32Bit, Jt: 2},
		{Code: equal, K: unix.SYS_EXECVE, Jt: 1},
		{Code: equal, K: unix.SYS_EXECVEAT, Jt: 0, Jf: 1},
		{Code: done, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: done, K: unix.SECCOMP_RET_ALLOW},
	}
}

// denyExec loads execFilter into all threads at once. It needs no_new_privs
// or CAP_SYS_ADMIN.
func denyExec() error {
	filter := execFilter()
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	r, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return fmt.Errorf("load the seccomp filter: %w", errno)
	}
	if r != 0 {
		return fmt.Errorf("load the seccomp filter: thread %d cannot take it", r)
	}
	return nil
}
