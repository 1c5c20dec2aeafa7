// SPDX-License-Identifier: Apache-2.0

package kernels

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"security-exporter/internal/config"
	"security-exporter/internal/sensor/aggregate"
	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/sensor/probes/file"
	"security-exporter/internal/sensor/probes/kernel"
	"security-exporter/internal/sensor/probes/network"
	"security-exporter/internal/sensor/probes/privilege"
	"security-exporter/internal/sensor/probes/process"
	"security-exporter/internal/testkit"
)

// What Linux 5.4 has last of each kind, in the numbers of bpf.h.
const (
	last54Helper  = asm.FnTcpGenSyncookie
	last54Program = 25 // BPF_PROG_TYPE_CGROUP_SOCKOPT
	last54Map     = ebpf.DevMapHash
)

// oldest makes the running kernel look like 5.4 as far as the loader asks it:
// BTF knows no newer helper and type of program, and there is no ring buffer.
func oldest(t *testing.T) *probe.Host {
	t.Helper()
	host := testkit.Inspect(t)
	if host.BTFErr != nil {
		t.Fatal(host.BTFErr)
	}
	host.BTF = host.BTF.Copy()
	host.RingBuffers, host.Swaps, host.Slots = false, false, false
	for name, last := range map[string]uint64{"bpf_func_id": uint64(last54Helper), "bpf_prog_type": last54Program, "bpf_map_type": uint64(last54Map)} {
		var enum *btf.Enum
		if err := host.BTF.TypeByName(name, &enum); err != nil {
			t.Fatal(err)
		}
		enum.Values = slices.DeleteFunc(slices.Clone(enum.Values), func(v btf.EnumValue) bool { return v.Value > last })
	}
	return host
}

// refuseNewer makes the verifier of a newer kernel refuse what that of 5.4
// does: a helper that it can reach and 5.4 does not have. It may not know the
// value of a constant either, which 5.4 does not look up.
func refuseNewer(t *testing.T) func(*ebpf.CollectionSpec) {
	return func(object *ebpf.CollectionSpec) {
		const missing = 0xffff
		for name, m := range object.Maps {
			if m.Type > last54Map {
				t.Errorf("map %s has the type %s", name, m.Type)
			}
			m.Flags &^= 0x80 // BPF_F_RDONLY_PROG
		}
		for _, program := range object.Programs {
			for i := range program.Instructions {
				ins := &program.Instructions[i]
				if !ins.IsBuiltinCall() {
					continue
				}
				switch helper := asm.BuiltinFunc(ins.Constant); helper {
				case asm.FnProbeReadKernel, asm.FnProbeReadKernelStr, asm.FnProbeReadUser, asm.FnProbeReadUserStr:
					// The library puts the older ones in their place.
				default:
					if helper > last54Helper {
						ins.Constant = missing
					}
				}
			}
		}
	}
}

// without leaves out the rungs of hooks that 5.4 does not have.
func without(spec *probe.Spec, hooks ...string) *probe.Spec {
	for i := range spec.Parts {
		spec.Parts[i].Rungs = slices.DeleteFunc(spec.Parts[i].Rungs, func(rung probe.Rung) bool {
			return slices.ContainsFunc(hooks, func(hook string) bool { return strings.Contains(rung.Hook, hook) })
		})
	}
	return spec
}

// A kernel of the shape of 5.4 has no BTF tracepoints, trampolines, iterators
// and ring buffers. Every probe counts by the other hooks; what has none of
// them says why.
func TestOldest(t *testing.T) {
	testkit.RequireBPF(t)
	_, err := os.Stat("/sys/bus/event_source/devices/kprobe/type")
	kprobes := err == nil
	watched := filepath.Join(t.TempDir(), "watched")
	if err := os.WriteFile(watched, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	attached := func(hook string) probe.Status {
		return probe.Status{State: probe.Attached, Reason: probe.ReasonNone, Hook: hook}
	}
	either := func(with, without probe.Status) probe.Status {
		if kprobes {
			return with
		}
		return without
	}
	modules := probe.Status{State: probe.NotApplicable, Reason: probe.ReasonNoModuleSupport}
	if _, err := os.Stat("/proc/modules"); err == nil {
		modules = attached("tracepoint/syscalls/sys_exit_init_module")
	}
	host := oldest(t)
	const programs = "raw_tracepoint/sched_process_exec"
	processes, after := programs, " raw_tracepoint/sched_process_fork raw_tracepoint/sched_process_exit"
	if host.Preempts() && kprobes { // as no kernel of that shape does
		processes, after = "kprobe/finalize_exec", " kprobe/wake_up_new_task kprobe/exit_signals"
	}
	settings := probe.Settings{
		Constants: map[string]any{"rings": false, "stream": false, "detailed": false, "arguments": false},
		Edit:      refuseNewer(t),
	}
	shared := probe.NewShared()
	defer func() {
		if err := shared.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, c := range []struct {
		spec *probe.Spec
		want probe.Status
	}{
		{privilege.New(), either(attached("kretprobe/__sys_set*id "+programs+after), attached("tracepoint/syscalls/sys_exit_set*id "+programs+after))},
		{process.New(), attached(processes)},
		{network.New(), either(attached("raw_tracepoint/inet_sock_set_state kprobe/udp_sendmsg"), attached("raw_tracepoint/inet_sock_set_state cgroup/connect4"))},
		{
			file.New(file.NewRules([]config.FileRule{{Path: watched, Read: config.SeverityCritical, Write: config.SeverityCritical}})),
			either(attached("kprobe/security_file_open kprobe/vfs_rename"), probe.Status{
				State: probe.Unsupported, Reason: probe.ReasonKernelTooOld, Hook: "tracepoint/syscalls/sys_exit_open*",
			}),
		},
		{kernel.New(), modules},
	} {
		t.Run(c.spec.Name(), func(t *testing.T) {
			var refused refusals
			host.WithTracefs(func() {
				p := probe.Start(t.Context(), without(c.spec, "sched_prepare_exec", "security_bprm"), host, shared, settings, slog.New(&refused))
				defer func() {
					if err := p.Close(); err != nil {
						t.Error(err)
					}
				}()
				if s := p.Status(); s != c.want {
					t.Errorf("%+v, want %+v\n%s", s, c.want, refused.text())
				}
				if c.spec.Name() != "file" {
					return
				}
				const n = 100
				for range n {
					if _, err := os.ReadFile(watched); err != nil {
						t.Error(err)
					}
				}
				if got, err := aggregate.Total(p); err != nil || got != n {
					t.Errorf("%d accesses, want %d: %v", got, n, err)
				}
			})
		})
	}
}
