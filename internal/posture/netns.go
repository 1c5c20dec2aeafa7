// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"security-exporter/internal/hostfs"
)

// Reads /proc/PID/net/dev, whose inode number is that of the network
// namespace's own table (fs/proc/proc_net.c): it tells two namespaces apart
// without the ptrace right that /proc/PID/ns needs. Enters /proc/PID/ns/net
// (setns(2)).

// hostPid is the process whose network namespace is the host's.
const hostPid = 1

// inNetNS calls f in the network namespace of a process, on a thread of its
// own if that is not ours.
func inNetNS(ctx context.Context, root *hostfs.Root, pid int, f func() error) error {
	same, err := sameNetNS(ctx, root, pid)
	if err != nil {
		return err
	}
	if same {
		return f()
	}
	return onOwnThread(func() error {
		if err := enterNetNS(root, pid); err != nil {
			return fmt.Errorf("enter the network namespace of process %d: %w: run in the host's network namespace, or grant CAP_SYS_ADMIN and CAP_SYS_PTRACE", pid, err)
		}
		return f()
	})
}

// onOwnThread calls f on a thread that ends afterwards, so that f may change
// its namespaces and no other goroutine ever finds itself in them. It never is
// the main thread: that one does not end, and /proc/self shows its namespaces.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// While this goroutine holds the main thread, another cannot get it.
			done <- onOwnThread(f)
			runtime.UnlockOSThread()
			return
		}
		done <- f()
	}()
	return <-done
}

func sameNetNS(ctx context.Context, root *hostfs.Root, pid int) (bool, error) {
	theirs, err := root.Procfs.Stat(ctx, "/"+strconv.Itoa(pid)+"/net/dev")
	if errors.Is(err, hostfs.ErrNotExist) {
		// /proc is mounted with hidepid: what cannot be compared is taken
		// for the same.
		return true, nil
	}
	if err != nil {
		return false, err
	}
	ours, err := root.Procfs.Stat(ctx, "/self/net/dev")
	return ours.Ino == theirs.Ino, err
}

func enterNetNS(root *hostfs.Root, pid int) error {
	p, err := root.Process(pid)
	if err != nil {
		return err
	}
	defer func() { _ = p.Close() }()
	ns, err := p.OpenNS("net")
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
}
