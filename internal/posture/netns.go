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
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and no other
		// goroutine finds itself in a foreign namespace.
		runtime.LockOSThread()
		if err := enterNetNS(root, pid); err != nil {
			done <- fmt.Errorf("enter the network namespace of process %d: %w: run in the host's network namespace, or grant CAP_SYS_ADMIN and CAP_SYS_PTRACE", pid, err)
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
