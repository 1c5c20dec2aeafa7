// SPDX-License-Identifier: Apache-2.0

// Package file counts accesses to watched files. The list of files is turned
// into tables in three steps: rules are resolved to paths that exist or may
// (resolve.go), the kernel says how it identifies them (identify.go), and the
// tables are written so that nothing watched is ever missing (tables.go).
package file

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/config"
	"security-exporter/internal/metric"
	"security-exporter/internal/sensor/probe"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -no-global-types bpf file.bpf.c -- -O2 -g -Wall -Werror -mcpu=v3 -I. -I../../../bpf -I../../../bpf/vmlinux

// Rules are the rules of one probe, which may change while it runs. It is
// safe for concurrent use.
type Rules struct {
	mu      sync.Mutex // held by one change at a time
	list    []config.FileRule
	watcher atomic.Pointer[Watcher] // while the probe runs
}

// NewRules takes over the list.
func NewRules(list []config.FileRule) *Rules { return &Rules{list: list} }

// Set puts other rules in force, all of them, or none and an error. What the
// old and the new ones have in common is counted all the while. A probe that
// starts later starts with them.
func (r *Rules) Set(list []config.FileRule) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w := r.watcher.Load(); w != nil {
		if err := w.setRules(list); err != nil {
			return fmt.Errorf("watched files: %w", err)
		}
	}
	r.list = list
	return nil
}

func (r *Rules) start(p *probe.Probe) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := newWatcher(p, r.list)
	if err := w.start(); err != nil {
		return err
	}
	r.watcher.Store(w)
	return nil
}

func (r *Rules) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w := r.watcher.Swap(nil); w != nil {
		w.stop()
	}
}

func (r *Rules) usage() []probe.Table {
	w := r.watcher.Load()
	if w == nil {
		return nil
	}
	return w.usage()
}

// New declares the probe for a list of rules.
func New(rules *Rules) *probe.Spec {
	return &probe.Spec{
		Index:  int(abi.ProbeFile),
		Load:   loadBpf,
		Object: _BpfBytes,
		Metrics: []*metric.Metric{
			metric.New(metric.Counter, "security_ebpf_file_access_total",
				"Successful opens of watched files, and writes to them by replacing, renaming, removing, truncating or changing mode or owner.",
				metric.Closed("severity", abi.Severities...), metric.Closed("operation", abi.Operations...)),
		},
		Parts: []probe.Part{
			{Name: "identity", Rungs: []probe.Rung{{Programs: []string{"identify"}}}, Auxiliary: true},
			{Name: "opens", Rungs: openRungs()},
			{Name: "changes", Rungs: changeRungs()},
			{Name: "io_uring", Rungs: ringRungs(), Auxiliary: true, Applies: unlessTrampolines},
		},
		Compat: &probe.Part{Name: "32-bit calls", Applies: unlessTrampolines, Rungs: []probe.Rung{
			{Hook: "tp_btf/sys_exit", Programs: []string{"on_compat_sys_exit"}},
		}},
		Started: rules.start,
		Stop:    rules.stop,
		Tables:  func(*probe.Probe) []probe.Table { return rules.usage() },
	}
}

var openCalls = []string{"openat", "open_by_handle_at"}
var someOpenCalls = []string{"open", "creat", "openat2"} // arm64 has not the first two; the last is of 5.6

var changeCalls = []string{
	"renameat2", "unlinkat", "fchmod", "fchmodat", "fchown", "fchownat", "truncate", "ftruncate",
}
var olderChangeCalls = []string{"rename", "renameat", "unlink", "chmod", "chown", "lchown", "fchmodat2"}

// exits are the tracepoints at the exits of system calls.
func exits(calls []string) []string {
	var out []string
	for _, call := range calls {
		out = append(out, "syscalls/sys_exit_"+call)
	}
	return out
}

func openRungs() []probe.Rung {
	return []probe.Rung{
		{Hook: "fexit/security_file_open", Programs: []string{"on_security_file_open"}},
		{Hook: "kprobe/security_file_open", Programs: []string{"on_kprobe_security_file_open", "on_kretprobe_security_file_open"}},
		{
			Hook:     "tracepoint/syscalls/sys_exit_open*",
			Programs: []string{"on_sys_exit_open"},
			Events:   exits(openCalls), OptionalEvents: exits(someOpenCalls),
			Requires: probe.NeedsCasts,
		},
		{
			Hook:     "tracepoint/syscalls/sys_exit_open*",
			Programs: []string{"on_slow_sys_exit_open"},
			Events:   exits(openCalls), OptionalEvents: exits(someOpenCalls),
		},
	}
}

// changeRungs: a rung for each form that the functions have had. vfs_rename
// takes one struct since 5.12, vfs_unlink and notify_change a mount's id map
// in front; 5.10 has got the first of the two changes in its updates.
func changeRungs() []probe.Rung {
	const fexit, kprobe = "fexit/vfs_rename", "kprobe/vfs_rename"
	common := []string{"on_security_inode_rename", "on_security_inode_unlink"}
	older := []string{"on_vfs_unlink_v5_4", "on_notify_change_v5_4", "on_notify_change_exit_v5_4"}
	returns := []string{
		"on_kprobe_security_inode_rename", "on_kretprobe_vfs_rename", "on_kprobe_security_inode_unlink",
		"on_kretprobe_vfs_unlink", "on_kretprobe_notify_change",
	}
	return []probe.Rung{
		{
			Hook:     fexit,
			Programs: slices.Concat(common, []string{"on_vfs_rename", "on_vfs_unlink", "on_notify_change", "on_notify_change_exit"}),
			Requires: takes(parameters{"vfs_rename": 1, "vfs_unlink": 4, "notify_change": 4}),
		},
		{
			Hook:     fexit,
			Programs: slices.Concat(common, older, []string{"on_vfs_rename"}),
			Requires: takes(parameters{"vfs_rename": 1, "vfs_unlink": 3, "notify_change": 3}),
		},
		{
			Hook:     fexit,
			Programs: slices.Concat(common, older, []string{"on_vfs_rename_v5_4"}),
			Requires: takes(parameters{"vfs_rename": 6, "vfs_unlink": 3, "notify_change": 3}),
		},
		{
			Hook:     kprobe,
			Programs: append(slices.Clone(returns), "on_kprobe_notify_change"),
			Requires: takes(parameters{"notify_change": 4}),
		},
		{
			Hook:     kprobe,
			Programs: append(slices.Clone(returns), "on_kprobe_notify_change_v5_4"),
			Requires: takes(parameters{"notify_change": 3}),
		},
		{
			Hook: "tp_btf/inode_set_ctime_to_ts",
			Programs: []string{
				"on_sys_exit_change", "on_ctime_ns_xchg", "on_ctime_xchg_skip", "on_inode_set_ctime_to_ts",
			},
			Events: exits(changeCalls), OptionalEvents: exits(olderChangeCalls),
		},
	}
}

// ringRungs: io_uring's completions, which better rungs do not need.
func ringRungs() []probe.Rung {
	return []probe.Rung{
		{Hook: "tp_btf/io_uring_complete", Programs: []string{"on_io_uring_complete"}, Requires: arguments("io_uring_complete", 3)},
		{Hook: "tp_btf/io_uring_complete", Programs: []string{"on_io_uring_complete_v5_19"}, Requires: arguments("io_uring_complete", 5, 7)},
	}
}

// unlessTrampolines: the hooks inside the kernel's functions see 32-bit calls
// and io_uring anyway.
var unlessTrampolines = probe.UnlessRuns("on_security_file_open", "on_kprobe_security_file_open")

// parameters are those of kernel functions, by name.
type parameters map[string]int

func takes(want parameters) func(*probe.Host) error {
	return func(h *probe.Host) error {
		for name, n := range want {
			if got := h.FunctionParams(name); got != n {
				return fmt.Errorf("%w: %s has %d parameters, not %d", probe.ErrHookMissing, name, got, n)
			}
		}
		return nil
	}
}

// arguments: the tracepoint has one of these numbers of arguments.
func arguments(tracepoint string, allowed ...int) func(*probe.Host) error {
	return func(h *probe.Host) error {
		if got := h.TracepointParams(tracepoint); !slices.Contains(allowed, got) {
			return fmt.Errorf("%w: %s has %d arguments, not %v", probe.ErrHookMissing, tracepoint, got, allowed)
		}
		return nil
	}
}
