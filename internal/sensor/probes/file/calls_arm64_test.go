// SPDX-License-Identifier: Apache-2.0

package file

import "golang.org/x/sys/unix"

// arm64 has neither open(2) nor creat(2): the C library calls openat(2).

func legacyOpen(args ...string) error { return openClose(args[0], unix.O_RDONLY) }

func legacyCreat(args ...string) error {
	return openClose(args[0], unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC)
}
