// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"slices"
	"testing"

	"github.com/cilium/ebpf"
)

func TestAllowed(t *testing.T) {
	t.Parallel()
	object := &ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{
		"fexit":   {Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFExit},
		"lsm":     {Type: ebpf.LSM, AttachType: ebpf.AttachLSMMac},
		"kprobe":  {Type: ebpf.Kprobe},
		"btf":     {Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp},
		"raw":     {Type: ebpf.RawTracepoint},
		"classic": {Type: ebpf.TracePoint},
		"cgroup":  {Type: ebpf.CGroupSockAddr},
	}}
	// from the one that sees most, as probes list them
	all := []string{"fexit", "lsm", "kprobe", "btf", "raw", "classic", "cgroup"}
	for name, c := range map[string]struct {
		policy   Policy
		preempts bool
		rungs    []string
		want     []string
	}{
		"auto":                               {PolicyAuto, false, all, all},
		"auto, preempting":                   {PolicyAuto, true, all, []string{"kprobe", "fexit", "lsm", "btf", "raw", "classic", "cgroup"}},
		"auto, preempting, without kprobes":  {PolicyAuto, true, []string{"fexit", "btf"}, []string{"fexit", "btf"}},
		"fentry":                             {PolicyFentry, false, all, []string{"fexit", "lsm"}},
		"fentry, preempting":                 {PolicyFentry, true, all, []string{"fexit", "lsm"}},
		"fentry, none of the kind":           {PolicyFentry, false, []string{"kprobe", "cgroup"}, []string{"kprobe", "cgroup"}},
		"kprobe":                             {PolicyKprobe, false, all, []string{"kprobe"}},
		"kprobe, none of the kind":           {PolicyKprobe, false, []string{"fexit", "btf", "classic"}, []string{"btf", "classic"}},
		"kprobe, only better ones":           {PolicyKprobe, false, []string{"fexit"}, nil},
		"tracepoint":                         {PolicyTracepoint, false, all, []string{"btf", "raw", "classic"}},
		"tracepoint, preempting":             {PolicyTracepoint, true, all, []string{"btf", "raw", "classic"}},
		"tracepoint, none of the kind":       {PolicyTracepoint, false, []string{"kprobe", "cgroup"}, []string{"cgroup"}},
		"raw":                                {PolicyRaw, false, all, []string{"raw"}},
		"classic, where there are only BTFs": {PolicyClassic, false, []string{"btf"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &Probe{object: object, host: &Host{preempts: c.preempts}, settings: Settings{Policy: c.policy}}
			var part Part
			for _, hook := range c.rungs {
				part.Rungs = append(part.Rungs, Rung{Hook: hook, Programs: []string{hook}})
			}
			rungs, err := p.allowed(&part)
			var got []string
			for _, rung := range rungs {
				got = append(got, rung.Hook)
			}
			if !slices.Equal(got, c.want) || (err != nil) != (c.want == nil) {
				t.Errorf("got %v, %v, want %v", got, err, c.want)
			}
		})
	}
}
