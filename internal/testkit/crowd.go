// SPDX-License-Identifier: Apache-2.0

package testkit

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// Crowd fills the host with processes that do nothing until the test ends:
// each has 10 descriptors, and the first ones have one TCP listener on
// loopback each.
func Crowd(tb testing.TB, processes, listeners int) {
	tb.Helper()
	null, err := os.Open(os.DevNull)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	for i := range processes {
		cmd := exec.Command("sleep", "3600")
		for range 6 {
			cmd.ExtraFiles = append(cmd.ExtraFiles, null)
		}
		last := null
		if i < listeners {
			last = listener(tb)
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, last)
		err := cmd.Start()
		if last != null {
			_ = last.Close()
		}
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
	}
}

// listener listens on a free port of loopback.
func listener(tb testing.TB) *os.File {
	tb.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "listener")
}
