// SPDX-License-Identifier: Apache-2.0

package testkit

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"slices"
	"testing"

	"security-exporter/internal/sensor/probe"
)

// PolicyVariable is the environment variable that forces a hook policy on the
// probes that tests start.
const PolicyVariable = "SECURITY_EXPORTER_TEST_HOOK_POLICY"

// Policy is the hook policy that the environment forces, or auto.
func Policy() probe.Policy {
	if policy := os.Getenv(PolicyVariable); policy != "" {
		return probe.Policy(policy)
	}
	return probe.PolicyAuto
}

// StartProbe starts a probe restricted by constants, on shared maps of its
// own, and closes it with the test. It fails the test unless every part that
// applies is attached. Where a forced policy asks for hooks that the kernel
// does not have, it skips the test.
func StartProbe(t testing.TB, host *probe.Host, spec *probe.Spec, settings probe.Settings) *probe.Probe {
	t.Helper()
	shared := probe.NewShared()
	t.Cleanup(func() { _ = shared.Close() })
	p := StartShared(t, host, shared, spec, settings)
	s := p.Status()
	if s.State == probe.Unsupported && settings.Policy == "" && Policy() != probe.PolicyAuto {
		t.Skipf("needs a kernel with hooks of the kind %s: %s (attached: %s)", Policy(), s.Reason, s.Hook)
	}
	if !s.Up() {
		t.Fatalf("%s: %s, %s (attached: %s)", spec.Name(), s.State, s.Reason, s.Hook)
	}
	return p
}

// StartShared starts a probe on maps that others use too, in any state.
func StartShared(t testing.TB, host *probe.Host, shared *probe.Shared, spec *probe.Spec, settings probe.Settings) *probe.Probe {
	t.Helper()
	var p *probe.Probe
	if settings.Policy == "" {
		settings.Policy = Policy()
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	host.WithTracefs(func() { p = probe.Start(context.Background(), spec, host, shared, settings, log) })
	t.Cleanup(func() {
		if n := p.RecursionMisses(); n != 0 && !mayMiss(p) {
			t.Errorf("%s: the recursion guard swallowed %d runs", spec.Name(), n)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// mayMiss says whether the recursion guard may keep programs of a probe from
// running: where the kernel preempts programs, and at the lower rungs for TCP,
// which interrupts run too and for which no other program stands in.
func mayMiss(p *probe.Probe) bool {
	return p.Host().Preempts() || p.Runs("on_raw_inet_sock_set_state") || p.Runs("on_classic_inet_sock_set_state")
}

// Only restricts the programs to a cgroup. The detail stream is on, as it is
// in the exporter, but where Streams says that it takes too long.
func (c *Cgroup) Only() probe.Settings {
	return probe.Settings{Constants: map[string]any{"only_cgroup": c.ID, "stream": Streams}}
}

// Sum reads a counter map: one number for each index, summed over the CPUs.
func Sum(t testing.TB, p *probe.Probe, name string) []int64 {
	t.Helper()
	counter := p.Map(name)
	if counter == nil {
		t.Fatalf("no map %s", name)
	}
	out := make([]int64, counter.MaxEntries())
	for i := range out {
		var each []uint64
		if err := counter.Lookup(uint32(i), &each); err != nil {
			t.Fatal(err)
		}
		for _, n := range each {
			out[i] += int64(n)
		}
	}
	return out
}

// Watch remembers the present values of counter maps.
type Watch struct {
	probe  *probe.Probe
	before map[string][]int64
	misses uint64
}

// NewWatch starts watching counters of a probe.
func NewWatch(t testing.TB, p *probe.Probe, names ...string) *Watch {
	t.Helper()
	w := &Watch{probe: p, before: map[string][]int64{}, misses: p.RecursionMisses()}
	for _, name := range names {
		w.before[name] = Sum(t, p, name)
	}
	return w
}

// Expect fails the test unless each watched counter has changed by just these
// amounts, by index. A counter that is not named must not have changed. Where
// programs may be kept from running, what is missing must have been counted as
// lost.
func (w *Watch) Expect(t testing.TB, want map[string]map[int]int64) {
	t.Helper()
	var lost int64
	if n := w.probe.RecursionMisses() - w.misses; n > 0 {
		if mayMiss(w.probe) {
			lost = int64(n)
		}
		defer func() { t.Logf("the recursion guard has kept programs from running %d times", n) }()
	}
	for _, name := range slices.Sorted(maps.Keys(w.before)) {
		for i, now := range Sum(t, w.probe, name) {
			got := now - w.before[name][i]
			if off := got - want[name][i]; off < -lost || off > lost {
				t.Errorf("%s[%d] changed by %d, want %d", name, i, got, want[name][i])
			}
		}
	}
}

// ExpectEmpty fails the test if a table of the probe has entries left. Where
// programs may be kept from running, what is left must have been counted as
// lost.
func ExpectEmpty(t testing.TB, p *probe.Probe) {
	t.Helper()
	lost := 0
	if mayMiss(p) {
		lost = int(p.RecursionMisses())
	}
	for _, table := range p.Spec().Tables(p) {
		if table.Entries > lost {
			t.Errorf("%d entries left in %s", table.Entries, table.Name)
		}
	}
}
