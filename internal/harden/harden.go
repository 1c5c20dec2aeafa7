// SPDX-License-Identifier: Apache-2.0

// Package harden takes away from the process what it does not need once it
// has started: capabilities, the way to new privileges, and the system calls
// that execute a program. Whoever takes the process over has no more than what
// is left. Collector shows what is left, as /proc/self/status has it.
package harden

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Needs says what the process goes on doing.
type Needs struct {
	// EBPF: programs run, and some may have to be loaded later, when the first
	// 32-bit program is executed.
	EBPF bool
	// Collectors of the posture half that run.
	Collectors map[string]bool
}

// lastCapBPF is the first kernel's cap_last_cap that splits CAP_BPF and
// CAP_PERFMON off CAP_SYS_ADMIN (5.8).
const lastCapBPF = unix.CAP_BPF

// Capabilities are those to keep, of the ones the process has, in the order of
// their numbers.
func (n Needs) Capabilities(last int) []int {
	// Shadow, sudoers and the other files that are not for all; the images
	// and roots of processes.
	keep := []int{unix.CAP_DAC_READ_SEARCH}
	on := func(names ...string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return n.Collectors[name] })
	}
	// The file probe looks up watched names in the roots of other processes.
	if n.EBPF || on("ports") {
		keep = append(keep, unix.CAP_SYS_PTRACE)
	}
	if on("firewall", "sysctl") {
		keep = append(keep, unix.CAP_NET_ADMIN)
	}
	if on("audit", "checks") {
		keep = append(keep, unix.CAP_AUDIT_CONTROL)
	}
	if n.EBPF && last >= lastCapBPF {
		keep = append(keep, unix.CAP_BPF, unix.CAP_PERFMON)
	}
	// net.core.bpf_jit_harden can be read with it alone. The unit does not
	// grant it, and does without the number.
	if on("sysctl") || (n.EBPF && last < lastCapBPF) {
		keep = append(keep, unix.CAP_SYS_ADMIN)
	}
	slices.Sort(keep)
	return keep
}

// Apply drops every other capability from the permitted, effective,
// inheritable, ambient and, if it may, bounding set of all threads, sets
// no_new_privs, and has the kernel refuse execve and execveat. It needs no
// privilege. It waits some seconds for a moment when no thread hangs in a file
// system, and then returns ErrBusy: the kernel lets each thread change only
// itself, and one that hangs would stop the others.
//
// Any other error ends it; what was done before stays done.
func Apply(ctx context.Context, needs Needs) error {
	status, err := readStatus("/proc/self/status")
	if err != nil {
		return err
	}
	last, err := lastCapability("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return err
	}
	var keep uint64
	for _, c := range needs.Capabilities(last) {
		keep |= 1 << c
	}
	keep &= status.effective
	if err := waitForThreads(ctx, "/proc/self/task"); err != nil {
		return err
	}
	if status.effective&(1<<unix.CAP_SETPCAP) != 0 {
		if err := dropBounding(keep, last); err != nil {
			return err
		}
	}
	if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("clear ambient capabilities: %w", errno)
	}
	if err := setCapabilities(keep); err != nil {
		return err
	}
	if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("set no_new_privs: %w", errno)
	}
	return denyExec()
}

func dropBounding(keep uint64, last int) error {
	for c := range last + 1 {
		if keep&(1<<c) != 0 {
			continue
		}
		if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(c), 0); errno != 0 {
			return fmt.Errorf("drop capability %d from the bounding set: %w", c, errno)
		}
	}
	return nil
}

// setCapabilities makes keep the permitted and effective set of all threads,
// and leaves the inheritable one empty.
func setCapabilities(keep uint64) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(keep), Permitted: uint32(keep)},
		{Effective: uint32(keep >> 32), Permitted: uint32(keep >> 32)},
	}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
	if errno != 0 {
		return fmt.Errorf("drop capabilities: %w", errno)
	}
	return nil
}

const (
	threadsPoll  = 20 * time.Millisecond
	threadsLimit = 3 * time.Second
)

// ErrBusy says that nothing was changed, because a thread is inside of a
// system call that may not come back.
var ErrBusy = errors.New("a thread hangs in a system call, so capabilities cannot be dropped from all of them: look for a file system that does not answer")

// waitForThreads returns when no other thread is inside of a system call that
// a file system can make hang. Between that and what follows there is a moment
// in which one could begin.
func waitForThreads(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, threadsLimit)
	defer cancel()
	for {
		busy, err := busyThread(dir)
		if err != nil || !busy {
			return err
		}
		select {
		case <-ctx.Done():
			return ErrBusy
		case <-time.After(threadsPoll):
		}
	}
}

func busyThread(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, fmt.Errorf("list threads: %w", err)
	}
	// The thread that reads is inside of read(2) itself.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self := strconv.Itoa(unix.Gettid())
	for _, e := range entries {
		if e.Name() == self {
			continue
		}
		// A kernel without this file, or a thread that ended: nothing to wait for.
		data, err := os.ReadFile(dir + "/" + e.Name() + "/syscall")
		if err == nil && mayHang(string(data)) {
			return true, nil
		}
	}
	return false, nil
}

// mayHang reads a line of /proc/PID/task/TID/syscall (proc(5)): a number, or
// "running" for a thread that is not blocked. Waiting for events, other
// threads or time ends with a signal.
func mayHang(line string) bool {
	number, _, _ := strings.Cut(strings.TrimSpace(line), " ")
	n, err := strconv.ParseInt(number, 10, 64)
	return err == nil && n >= 0 && !slices.Contains(waits, uintptr(n))
}
