// SPDX-License-Identifier: Apache-2.0

// Package privilege counts the calls that change ids and capabilities, the
// programs that do so by set-id bits and file capabilities, and the gains:
// how often a process came to be root or to hold more capabilities.
package privilege

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/metric"
	"security-exporter/internal/sensor/probe"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -no-global-types bpf privilege.bpf.c -- -O2 -g -Wall -Werror -mcpu=v3 -I../../../bpf -I../../../bpf/vmlinux

// New declares the probe. Start it before the process probe, and under the same
// policy: both run at a process's end, on one tracepoint in the order they were
// attached, by kprobes this one first, and the process probe takes away what
// this one compares with.
func New() *probe.Spec {
	return &probe.Spec{
		Index:  int(abi.ProbePrivilege),
		Load:   loadBpf,
		Object: _BpfBytes,
		Metrics: []*metric.Metric{
			metric.New(metric.Counter, "security_ebpf_privilege_escalation_total",
				"Calls and program executions that change user ids, group ids or capabilities, by kind and result.",
				metric.Closed("type", abi.Privileges...), metric.Closed("result", abi.Results...)),
			metric.New(metric.Counter, "security_ebpf_privilege_gained_total",
				"Times a process became root or gained capabilities in the initial user namespace, or made a user namespace.",
				metric.Closed("via", abi.Gains...)),
		},
		Parts: []probe.Part{
			{Name: "calls", Rungs: callRungs()},
			{Name: "programs", Rungs: execRungs()},
			{Name: "user namespaces of children", Rungs: ladder(
				"sched_process_fork", "on_sched_process_fork", "on_raw_sched_process_fork",
				"wake_up_new_task", "on_kprobe_wake_up_new_task",
				"task/task_newtask", "on_classic_task_newtask")},
			{Name: "last look", Rungs: ladder(
				"sched_process_exit", "on_sched_process_exit", "on_raw_sched_process_exit",
				"exit_signals", "on_kprobe_exit_signals",
				"sched/sched_process_exit", "on_classic_sched_process_exit")},
		},
		Compat:  &probe.Part{Name: "calls of 32-bit programs", Applies: probe.UnlessRuns("on_fexit_capset"), Rungs: probe.CompatRungs()},
		Started: started,
		Tables:  tables,
	}
}

// ladder is one hook as BTF and raw tracepoint, kprobe and classic tracepoint.
func ladder(hook, btf, raw, function, kprobe, event, classic string) []probe.Rung {
	return []probe.Rung{
		{Hook: "tp_btf/" + hook, Programs: []string{btf}},
		{Hook: "raw_tracepoint/" + hook, Programs: []string{raw}},
		{Hook: "kprobe/" + function, Programs: []string{kprobe}},
		{Hook: "tracepoint/" + event, Programs: []string{classic}},
	}
}

// noFunction are the programs for the calls that no kernel function of their
// own stands behind.
var noFunction = []string{"on_exit_setgroups", "on_exit_capset"}

// callRungs lists exits before entries, so that nothing is remembered that
// nobody would forget.
func callRungs() []probe.Rung {
	exits := prefixed("on_exit_", "setuid", "setreuid", "setresuid", "setfsuid",
		"setgid", "setregid", "setresgid", "setfsgid", "setgroups", "capset", "unshare")
	return []probe.Rung{
		{
			Hook: "fexit/__sys_set*id",
			Programs: concat(
				prefixed("on_fexit_", "setuid", "setreuid", "setresuid", "setfsuid",
					"setgid", "setregid", "setresgid", "setfsgid", "unshare"),
				noFunction),
		},
		{
			Hook: "fexit/__sys_set*id+fexit/__*_sys_capset",
			Programs: prefixed("on_fexit_", "setuid", "setreuid", "setresuid", "setfsuid",
				"setgid", "setregid", "setresgid", "setfsgid", "unshare", "setgroups", "capset"),
			// not without 32-bit programs, and on arm64 only the first
			Optional: prefixed("on_fexit_compat_", "setgroups16", "setgroups", "capset"),
		},
		{
			Hook: "kretprobe/__sys_set*id",
			Programs: concat(
				prefixed("on_kretprobe_", "setuid", "setreuid", "setresuid", "setfsuid",
					"setgid", "setregid", "setresgid", "setfsgid", "unshare"),
				prefixed("on_kprobe_", "setfsuid", "setfsgid", "unshare"),
				noFunction),
		},
		{
			Hook:     "tracepoint/syscalls/sys_exit_set*id",
			Programs: exits,
			Requires: savedRegisters,
		},
		{
			Hook:     "tracepoint/syscalls/sys_exit_set*id",
			Programs: concat(exits, prefixed("on_enter_", "setfsuid", "setfsgid", "unshare")),
		},
	}
}

func execRungs() []probe.Rung {
	return []probe.Rung{
		{Hook: "tp_btf/sched_prepare_exec", Programs: []string{"on_sched_prepare_exec", "on_sched_process_exec"}},
		{Hook: "raw_tracepoint/sched_prepare_exec", Programs: []string{"on_raw_sched_prepare_exec", "on_raw_sched_process_exec"}},
		{Hook: "kprobe/security_bprm_committing_creds", Programs: []string{
			"on_kprobe_security_bprm_committing_creds", "on_kprobe_security_bprm_creds_from_file",
		}},
		{Hook: "tp_btf/sched_process_exec", Programs: []string{"on_sched_process_exec_after"}},
		{Hook: "raw_tracepoint/sched_process_exec", Programs: []string{"on_raw_sched_process_exec_after"}},
		{Hook: "tracepoint/sched/sched_process_exec", Programs: []string{"on_classic_sched_process_exec"}},
	}
}

// savedRegisters: the arguments of a call can be read at its exit since 5.15.
func savedRegisters(*probe.Host) error {
	err := features.HaveProgramHelper(ebpf.TracePoint, asm.FnTaskPtRegs)
	if errors.Is(err, ebpf.ErrNotSupported) {
		return fmt.Errorf("%w: no bpf_task_pt_regs", probe.ErrHookMissing)
	}
	return err
}

// started tells the program for 32-bit calls what the rung in use sees anyway.
func started(p *probe.Probe) error {
	if p.Runs("on_exit_setuid") {
		return nil
	}
	if err := p.Variable("set_id_seen_in_kernel").Set(true); err != nil {
		return fmt.Errorf("set variable set_id_seen_in_kernel: %w", err)
	}
	return nil
}

// tables walks the calls that threads are in now and the threads whose
// credentials are not their group's, of both of which there are few.
func tables(p *probe.Probe) []probe.Table {
	var out []probe.Table
	for _, t := range []struct {
		table int
		name  string
	}{{int(abi.TablePending), "arguments"}, {int(abi.TableThreads), "threads"}} {
		if m := p.Map(t.name); m != nil {
			out = append(out, probe.Table{Name: abi.Tables[t.table], Entries: length(m), Capacity: int(m.MaxEntries())})
		}
	}
	return out
}

func length(m *ebpf.Map) int {
	var tid uint32
	value, n := make([]byte, m.ValueSize()), 0
	for each := m.Iterate(); each.Next(&tid, &value); {
		n++
	}
	return n
}

func prefixed(prefix string, names ...string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = prefix + name
	}
	return out
}

func concat(lists ...[]string) []string {
	var out []string
	for _, list := range lists {
		out = append(out, list...)
	}
	return out
}
