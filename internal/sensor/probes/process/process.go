// SPDX-License-Identifier: Apache-2.0

// Package process counts execs, exits and live thread groups by class, and
// keeps the process table that the other probes read.
package process

import (
	"errors"
	"fmt"
	"time"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/metric"
	"security-exporter/internal/sensor/probe"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -no-global-types bpf process.bpf.c -- -O2 -g -Wall -Werror -mcpu=v3 -I../../../bpf -I../../../bpf/vmlinux

// forksSeen is longer than a fork's program runs.
const forksSeen = 5 * time.Millisecond

// New declares the probe.
func New() *probe.Spec {
	sweeper := &sweeper{}
	class := metric.Closed("type", abi.Classes...)
	return &probe.Spec{
		Index:  int(abi.ProbeProcess),
		Load:   loadBpf,
		Object: _BpfBytes,
		Metrics: []*metric.Metric{
			metric.New(metric.Counter, "security_ebpf_process_exec_total",
				"Successful executions of a program, by class of the process.", class),
			metric.New(metric.Counter, "security_ebpf_process_exit_total",
				"Processes (thread groups) that ended, by class.", class),
			metric.New(metric.Gauge, "security_ebpf_process_active_count",
				"Live processes (thread groups), by class.", class),
		},
		Parts: []probe.Part{
			{Name: "processes", Rungs: rungs()},
			{Name: "scripts", Auxiliary: true, Applies: hasPrepareHook, Rungs: []probe.Rung{
				{Hook: "tp_btf/sched_prepare_exec", Programs: []string{"on_sched_prepare_exec"}, Requires: prepareExec},
				{Hook: "raw_tracepoint/sched_prepare_exec", Programs: []string{"on_raw_sched_prepare_exec"}, Requires: prepareExec},
				{Hook: "kprobe/security_bprm_creds_from_file", Programs: []string{"on_kprobe_security_bprm_creds_from_file"}},
			}},
			{Name: "older processes", Auxiliary: true, Rungs: []probe.Rung{
				{Hook: "iter/task", Programs: []string{"fill_processes"}},
			}},
			{Name: "unseen ends", Auxiliary: true, Rungs: []probe.Rung{
				{Hook: "iter/bpf_map", Programs: []string{"walk_processes"}, Requires: taskFromPid},
			}},
		},
		Started:  fill,
		Periodic: sweeper.sweep,
		Tables:   tables,
	}
}

// tables: the process table has one entry for each process that counts as live.
func tables(p *probe.Probe) []probe.Table {
	var live int64
	for class := range abi.Classes {
		if n, err := p.Counter("process_active_count", uint32(class)); err == nil {
			live += n
		}
	}
	capacity := p.Map("processes").MaxEntries()
	if p.Host().Slots {
		capacity += p.Map("process_slots").MaxEntries()
	}
	return []probe.Table{{Name: abi.Tables[abi.TableProcesses], Entries: int(max(live, 0)), Capacity: int(capacity)}}
}

func rungs() []probe.Rung {
	return []probe.Rung{
		{
			Hook:     "tp_btf/sched_process_exec",
			Programs: []string{"on_sched_process_fork", "on_sched_process_exec", "on_sched_process_exit_group_dead"},
			Requires: exitArguments(2),
		},
		{
			Hook:     "tp_btf/sched_process_exec",
			Programs: []string{"on_sched_process_fork", "on_sched_process_exec", "on_sched_process_exit_live"},
			Requires: exitArguments(1),
		},
		{
			Hook:     "raw_tracepoint/sched_process_exec",
			Programs: []string{"on_raw_sched_process_fork", "on_raw_sched_process_exec", "on_raw_sched_process_exit"},
		},
		{
			Hook:     "kprobe/finalize_exec",
			Programs: []string{"on_kprobe_wake_up_new_task", "on_kprobe_finalize_exec", "on_kprobe_taskstats_exit"},
		},
		{
			Hook:     "tracepoint/sched/sched_process_exec",
			Programs: []string{"on_classic_task_newtask", "on_classic_sched_process_exec", "on_classic_sched_process_exit"},
		},
	}
}

// exitArguments: sched_process_exit has a second argument since 6.16.
func exitArguments(n int) func(*probe.Host) error {
	return func(h *probe.Host) error {
		if got := h.TracepointParams("sched_process_exit"); got != n {
			return fmt.Errorf("%w: sched_process_exit has %d arguments, not %d", probe.ErrHookMissing, got, n)
		}
		return nil
	}
}

func prepareExec(h *probe.Host) error {
	if h.TracepointParams("sched_prepare_exec") == 0 {
		return fmt.Errorf("%w: no sched_prepare_exec before 6.10", probe.ErrHookMissing)
	}
	return nil
}

// hasPrepareHook: without one, scripts are looked for when the exec has happened.
func hasPrepareHook(p *probe.Probe) error {
	h := p.Host()
	if prepareExec(h) != nil && (!h.HasKprobes() || h.FunctionParams("security_bprm_creds_from_file") < 0) {
		return fmt.Errorf("%w: nothing to hook before an exec", probe.ErrNotApplicable)
	}
	return nil
}

// fill enters the processes that are older than the exporter. Those that are
// born meanwhile take no slot, where the program that fills could miss them.
func fill(p *probe.Probe) error {
	filling := p.Variable("filling")
	if err := filling.Set(true); err != nil {
		return fmt.Errorf("set filling: %w", err)
	}
	time.Sleep(forksSeen)
	_, err := p.Iterate("fill_processes", 1)
	if e := filling.Set(false); e != nil {
		err = errors.Join(err, fmt.Errorf("set filling: %w", e))
	}
	return err
}

func taskFromPid(h *probe.Host) error {
	if h.FunctionParams("bpf_task_from_pid") < 0 {
		return fmt.Errorf("%w: no bpf_task_from_pid before 6.2", probe.ErrNotApplicable)
	}
	return nil
}

// sweeper brings the table in line with what lives, after the recursion guard
// has kept a program from seeing a fork or an end. One goroutine may use it.
type sweeper struct{ misses uint64 }

func (s *sweeper) sweep(p *probe.Probe) error {
	misses := p.RecursionMisses()
	if misses == s.misses {
		return nil
	}
	s.misses = misses
	if err := fill(p); err != nil || !p.Runs("walk_processes") {
		return err
	}
	_, err := p.Iterate("walk_processes", 1)
	return err
}
