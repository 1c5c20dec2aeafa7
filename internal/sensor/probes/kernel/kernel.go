// SPDX-License-Identifier: Apache-2.0

// Package kernel counts kernel modules loaded and unloaded, and io_uring
// instances made.
package kernel

import (
	"os"
	"path/filepath"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/metric"
	"security-exporter/internal/sensor/probe"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -no-global-types bpf kernel.bpf.c -- -O2 -g -Wall -Werror -mcpu=v3 -I../../../bpf -I../../../bpf/vmlinux

// New declares the probe. The io_uring counter is auxiliary: it works where
// modules do not apply, and does not make the probe look attached there.
func New() *probe.Spec {
	action := metric.Closed("action", abi.ModuleActions...)
	return &probe.Spec{
		Index:  int(abi.ProbeKernel),
		Load:   loadBpf,
		Object: _BpfBytes,
		Metrics: []*metric.Metric{
			metric.New(metric.Counter, "security_ebpf_kernel_module_total",
				"Kernel modules loaded from memory, loaded from a file, and unloaded.", action),
			metric.New(metric.Counter, "security_ebpf_kernel_module_failures_total",
				"Attempts to load or unload a kernel module that failed, by action.", action),
			metric.New(metric.Counter, "security_ebpf_io_uring_setup_total",
				"io_uring instances made."),
		},
		Parts: []probe.Part{
			{Name: "modules", Applies: modulesApply, Rungs: moduleRungs()},
			{Name: "io_uring instances", Auxiliary: true, Rungs: []probe.Rung{
				{Hook: "tp_btf/io_uring_create", Programs: []string{"on_io_uring_create"}},
				{Hook: "raw_tracepoint/io_uring_create", Programs: []string{"on_raw_io_uring_create"}},
				{Hook: "tracepoint/io_uring/io_uring_create", Programs: []string{"on_classic_io_uring_create"}},
			}},
		},
		Compat: &probe.Part{Name: "calls of 32-bit programs", Applies: compatApplies, Rungs: probe.CompatRungs()},
	}
}

// moduleRungs has fexit in the middle: it misses what seccomp refuses, and is
// for where the exits of system calls may not be watched, but the last refusal
// that is reported should be theirs.
func moduleRungs() []probe.Rung {
	return []probe.Rung{
		{Hook: "tp_btf/module_load", Programs: moduleCalls("on_exit_", "on_module_load", "on_module_free")},
		{
			Hook:     "fexit/__*_sys_init_module",
			Programs: moduleCalls("on_fexit_", "on_module_load", "on_module_free"),
			Optional: moduleCalls("on_fexit_compat_"), // not on arm64, nor without 32-bit programs
		},
		{Hook: "tracepoint/syscalls/sys_exit_init_module", Programs: moduleCalls("on_exit_")},
	}
}

// moduleCalls are the programs for the three calls, and others.
func moduleCalls(prefix string, others ...string) []string {
	return append(others, prefix+"init_module", prefix+"finit_module", prefix+"delete_module")
}

// compatApplies: fexit sees 32-bit calls anyway.
func compatApplies(p *probe.Probe) error {
	if err := probe.UnlessRuns("on_fexit_init_module")(p); err != nil {
		return err
	}
	return modulesApply(p)
}

// modulesApply: a kernel built without module support has neither the list of
// modules nor their tracepoints.
func modulesApply(p *probe.Probe) error {
	h := p.Host()
	if h.TracepointParams("module_load") > 0 {
		return nil
	}
	if _, err := os.Stat(filepath.Join(h.ProcFS, "modules")); err == nil {
		return nil
	}
	return probe.ErrNoModules
}
