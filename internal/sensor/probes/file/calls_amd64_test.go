// SPDX-License-Identifier: Apache-2.0

package file

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls that newer architectures do not have.

func legacyOpen(args ...string) error { return legacy(unix.SYS_OPEN, args[0], unix.O_RDONLY) }

func legacyCreat(args ...string) error { return legacy(unix.SYS_CREAT, args[0], 0o600) }

func legacy(call uintptr, path string, second uintptr) error {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	fd, _, errno := unix.Syscall(call, uintptr(unsafe.Pointer(name)), second, 0)
	if errno != 0 {
		return errno
	}
	return unix.Close(int(fd))
}
