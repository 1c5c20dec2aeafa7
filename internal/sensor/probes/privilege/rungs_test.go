// SPDX-License-Identifier: Apache-2.0

package privilege

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/testkit"
)

// inCalls is the rung that sees setgroups and capset inside the kernel too.
const inCalls = 1

// withRung is the probe with just one rung for a part.
func withRung(part string, rung int) *probe.Spec {
	spec := New()
	for i := range spec.Parts {
		if spec.Parts[i].Name == part {
			spec.Parts[i].Rungs = spec.Parts[i].Rungs[rung : rung+1]
		}
	}
	return spec
}

// skipRefused: a call that seccomp refuses is never made, so it is not seen
// inside the kernel, nor at its entry, where a rung remembers arguments.
func skipRefused(t *testing.T, p *probe.Probe, name string) {
	t.Helper()
	if name == "seccomp" && (!p.Runs("on_exit_setuid") || p.Runs("on_enter_setfsuid")) {
		t.Skip("the rung in use does not see calls that seccomp refuses")
	}
}

// Each rung for calls that this kernel takes counts the same. The first must
// not be missing without a reason: some kernel functions refuse programs, some
// have no trampolines, some no kprobes.
func TestCallRungs(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	for rung, r := range callRungs() {
		t.Run(strconv.Itoa(rung)+" "+r.Hook, func(t *testing.T) {
			p, _ := startBoth(t, host, withRung("calls", rung), cgroup.Only())
			if s := p.Status(); !s.Up() {
				if s.State != probe.Unsupported && s.State != probe.Denied {
					t.Fatalf("not attached: %+v", s)
				}
				t.Skipf("needs a kernel with such hooks: %+v", p.Status())
			}
			w := cgroup.Start(t, "privilege")
			defer w.Stop()
			for _, c := range callCases {
				t.Run(c.name, func(t *testing.T) {
					skipRefused(t, p, c.name)
					watch := newWatch(t, p)
					c.make(w, 1)
					expect(t, watch, c.counts(1))
				})
			}
			watch := newWatch(t, p)
			w.Do("child", strconv.Itoa(testkit.Few), "unshare")
			expect(t, watch, counts{"userns": testkit.Few})
		})
	}
}

// Children in user namespaces, and the last look, by each kind of hook.
func TestOtherRungs(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	// the process probe's hooks must be of the same kind: see New
	for rung, policy := range []probe.Policy{probe.PolicyTracepoint, probe.PolicyRaw, probe.PolicyKprobe, probe.PolicyClassic} {
		t.Run(string(policy), func(t *testing.T) {
			if policy == probe.PolicyKprobe && !host.HasKprobes() {
				t.Skip("needs a kernel with kprobes")
			}
			settings := cgroup.Only()
			settings.Policy = policy
			spec := withRung("user namespaces of children", rung)
			spec.Parts[3] = withRung("last look", rung).Parts[3]
			p, table := startBoth(t, host, spec, settings)
			if !p.Status().Up() {
				t.Fatalf("not attached: %+v", p.Status())
			}
			watch := newWatch(t, p)
			w := cgroup.Start(t, "privilege")
			w.Do("child", strconv.Itoa(testkit.Few), "clone")
			w.Stop()
			expect(t, watch, counts{"userns": testkit.Few})
			w = cgroup.Start(t, "privilege")
			w.Do("setup") // its exec is over: it is in the table
			lower(t, table, w.PID())
			w.Stop()
			expect(t, watch, counts{"userns": testkit.Few, "other": 1})
		})
	}
}

// Each call and each gain is one event, with what was counted in it.
func TestEvents(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	settings := cgroup.Only()
	settings.Constants["stream"] = true
	p, _ := startBoth(t, host, New(), settings)
	w := cgroup.Start(t, "privilege")
	got := map[abi.Event]int{}
	var events []abi.Event
	for range 5 { // the rings do not hold them all
		w.Do("calls", "1", "100", "", "setresuid:-1:1000:-1 setresuid:-1:0:-1 !setgid:-1")
		events = append(events, drain(t, p.Map("events"))...)
		events = append(events, drain(t, p.Map("serious_events"))...)
	}
	for _, event := range events {
		if event.Probe != uint8(abi.ProbePrivilege) {
			continue // the worker's own start
		}
		if event.Tgid != uint32(w.PID()) {
			t.Errorf("event of process %d, want %d", event.Tgid, w.PID())
		}
		got[abi.Event{
			Kind: event.Kind, Probe: event.Probe, What: event.What, How: event.How,
			OldId: event.OldId, NewId: event.NewId, Euid: event.Euid,
		}]++
	}
	call := abi.Event{Kind: uint8(abi.EventPrivilege), Probe: uint8(abi.ProbePrivilege)}
	drop, raise, refused, gain := call, call, call, call
	drop.NewId, drop.Euid = 1000, 1000
	raise.OldId = 1000
	refused.What, refused.How = 1, 1
	gain.Kind, gain.OldId = uint8(abi.EventGain), 1000
	for _, want := range []abi.Event{drop, raise, refused, gain} {
		if got[want] != 500 {
			t.Errorf("%d events %+v, want 500", got[want], want)
		}
		delete(got, want)
	}
	if len(got) > 0 {
		t.Errorf("events that nobody asked for: %+v", got)
	}
	if !p.Status().Up() {
		t.Errorf("status %+v", p.Status())
	}
}

func drain(t *testing.T, ring *ebpf.Map) []abi.Event {
	t.Helper()
	reader, err := ringbuf.NewReader(ring)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := reader.Flush(); err != nil {
		t.Fatal(err)
	}
	var out []abi.Event
	for {
		record, err := reader.Read()
		if errors.Is(err, ringbuf.ErrFlushed) || errors.Is(err, os.ErrDeadlineExceeded) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		var event abi.Event
		if err := binary.Read(bytes.NewReader(record.RawSample), binary.NativeEndian, &event); err != nil {
			t.Fatal(err)
		}
		out = append(out, event)
	}
}
