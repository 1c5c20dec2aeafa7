// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
	"security-exporter/internal/metric/metrictest"
	"security-exporter/internal/sensor/event"
	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/testkit"
)

var host = sync.OnceValue(func() *probe.Host {
	h := probe.Inspect("/proc", "/sys", "/")
	h.Release()
	return h
})

// at is a clock that the test moves.
type at struct{ now time.Time }

func (a *at) time() time.Time { return a.now }

// resolver is one for the real cgroups and the files of a fixture. Unless the
// test has a clock, its time stands still, so that no machine is too slow.
func resolver(t testing.TB, o Options, rootfs string) *Resolver {
	t.Helper()
	if o.Root == nil {
		o.Root = hostfs.New(hostfs.Paths{Rootfs: rootfs})
	}
	if o.Now == nil {
		o.Now = (&at{time.Now()}).time
	}
	o.Logger = discard()
	r := New(o)
	r.patience = time.Minute
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// cgroup makes directories in a cgroup of the test's own.
func cgroup(t testing.TB, parent *testkit.Cgroup, name string) uint64 {
	t.Helper()
	dir := parent.Path
	for part := range strings.SplitSeq(name, "/") {
		dir = filepath.Join(dir, part)
		if made := dir; os.Mkdir(made, 0o755) == nil {
			t.Cleanup(func() { _ = os.Remove(made) })
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func exit(id uint64, tgid int) *event.Event {
	return &event.Event{Kind: event.Kind(abi.EventExit), CgroupID: id, TGID: uint32(tgid)}
}

func TestLookupByCgroup(t *testing.T) {
	t.Parallel()
	testkit.RequireBPF(t)
	clock := &at{time.Now()}
	r := resolver(t, Options{CgroupRoot: host().CgroupRoot, Now: clock.time}, "testdata/docker")
	if r.unified.mount == nil {
		t.Fatal("cannot open cgroups by their id")
	}
	parent := testkit.NewCgroup(t, host())
	web := cgroup(t, parent, "docker/"+idA)
	inner := cgroup(t, parent, "docker/"+idA+"/docker/"+idB)
	unit := cgroup(t, parent, "system.slice/ssh.service")
	for id, want := range map[uint64]string{web: "web", inner: "fedcba987654", unit: "", 1: "", 0: "", 1 << 40: ""} {
		for range 2 {
			got := r.Lookup(exit(id, 0))
			if got.Label() != want {
				t.Errorf("cgroup %d: label %q, want %q", id, got.Label(), want)
			}
		}
	}
	if got := r.Lookup(exit(unit, 0)).Unit; got != "ssh.service" {
		t.Errorf("unit %q", got)
	}
	if got := r.Stats(); got.Entries != 5 || got.Gone != 1 || got.Budget != 0 {
		t.Errorf("%+v, want 5 entries and 1 gone", got)
	}
}

func (r *Resolver) knows(h *hierarchy, id uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := h.byID[id]
	return ok
}

// A cgroup that goes is forgotten by the next sweep; until then it has its
// name, for events that come late.
func TestSweep(t *testing.T) {
	t.Parallel()
	testkit.RequireBPF(t)
	parent := testkit.NewCgroup(t, host())
	for _, byID := range []bool{true, false} {
		r := resolver(t, Options{CgroupRoot: host().CgroupRoot}, "testdata/docker")
		if !byID {
			withoutHandles(t, r)
		}
		id := cgroup(t, parent, "docker/"+idA)
		if err := r.Fill(t.Context()); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(parent.Path, "docker", idA)
		r.sweep(t.Context())
		if !r.knows(&r.unified, id) {
			t.Errorf("by id %v: forgotten while it is there", byID)
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		if got := r.Lookup(exit(id, 0)).Label(); got != "web" {
			t.Errorf("by id %v: label %q before the sweep", byID, got)
		}
		r.sweep(t.Context())
		if r.knows(&r.unified, id) {
			t.Errorf("by id %v: not forgotten", byID)
		}
		if got := r.Lookup(exit(id, 0)).Label(); got != "" {
			t.Errorf("by id %v: label %q after the sweep", byID, got)
		}
	}
}

func withoutHandles(t testing.TB, r *Resolver) {
	t.Helper()
	if err := r.unified.close(); err != nil {
		t.Fatal(err)
	}
	r.unified.mount = nil
}

// Where opening by id is refused, the process says where it is, if it is
// still where the event was.
func TestLookupByProcess(t *testing.T) {
	t.Parallel()
	testkit.RequireBPF(t)
	clock := &at{time.Now()}
	r := resolver(t, Options{CgroupRoot: host().CgroupRoot, Now: clock.time}, "testdata/docker")
	withoutHandles(t, r)
	r.processes.asked = false
	parent := testkit.NewCgroup(t, host())
	id := cgroup(t, parent, "docker/"+idA)
	elsewhere := cgroup(t, parent, "docker/"+idB)
	dir, err := os.Open(filepath.Join(parent.Path, "docker", idA))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	sleep := exec.Command("sleep", "60")
	sleep.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = sleep.Process.Kill()
		_ = sleep.Wait()
	}()
	for _, c := range []struct {
		name  string
		e     *event.Event
		pass  time.Duration
		label string
		gone  uint64
	}{
		{"another cgroup than the process is in", exit(elsewhere, sleep.Process.Pid), 0, "", 1},
		{"nobody to ask", exit(id, 0), 0, "", 2},
		{"not asked again at once", exit(id, sleep.Process.Pid), 0, "", 2},
		{"but later", exit(id, sleep.Process.Pid), retry + 1, "web", 2},
		{"and then remembered", exit(id, 0), 0, "web", 2},
	} {
		clock.now = clock.now.Add(c.pass)
		if got := r.Lookup(c.e).Label(); got != c.label {
			t.Errorf("%s: label %q, want %q", c.name, got, c.label)
		}
		if got := r.Stats().Gone; got != c.gone {
			t.Errorf("%s: %d gone, want %d", c.name, got, c.gone)
		}
	}
}

// New cgroups are learned below any directory that is no container or unit.
func TestWatch(t *testing.T) {
	t.Parallel()
	testkit.RequireBPF(t)
	parent := testkit.NewCgroup(t, host())
	r := resolver(t, Options{CgroupRoot: host().CgroupRoot}, "testdata/docker")
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.watch(ctx, &r.unified) }()
	eventually(t, "what is there", func() bool { return r.knows(&r.unified, parent.ID) })
	web := cgroup(t, parent, "docker/"+idA)
	eventually(t, "a container in a new directory", func() bool { return r.knows(&r.unified, web) })
	inner := cgroup(t, parent, "docker/"+idA+"/inner")
	again := cgroup(t, parent, "docker/"+idB)
	eventually(t, "one beside it", func() bool { return r.knows(&r.unified, again) })
	if r.knows(&r.unified, inner) {
		t.Error("the inside of a container is watched")
	}
	if got := r.Lookup(exit(inner, 0)).Label(); got != "web" {
		t.Errorf("label %q", got)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A pure version 2 host never asks processes.
func TestPureVersion2AsksNoProcess(t *testing.T) {
	t.Parallel()
	procfs := proc(t, map[int]string{1: "0::/init.scope\n", 8: "4:memory:/docker/" + idA + "\n0::/\n"})
	r := resolver(t, Options{Root: onHost(procfs, "testdata/docker")}, "")
	if got := r.Lookup(exit(0, 8)).Label(); got != "" {
		t.Errorf("label %q", got)
	}
	if got := r.Stats(); got != (Stats{Capacity: DefaultCapacity}) {
		t.Errorf("%+v", got)
	}
}

func TestCapacity(t *testing.T) {
	t.Parallel()
	processes := map[int]string{1: "1:name=systemd:/\n"}
	for pid := 2; pid < 30; pid++ {
		processes[pid] = fmt.Sprintf("1:name=systemd:/jobs/%d\n", pid)
	}
	r := resolver(t, Options{Root: onHost(proc(t, processes), "testdata/docker"), Capacity: 4}, "")
	for pid := 2; pid < 30; pid++ {
		if got := r.Lookup(exit(uint64(pid), pid)).Path; got != fmt.Sprintf("/jobs/%d", pid) {
			t.Errorf("process %d: path %q", pid, got)
		}
	}
	if got := r.Stats(); got.Entries != 12 || got.Capacity != 12 || got.Evicted != 3*24 {
		t.Errorf("%+v", got)
	}
}

func TestBudget(t *testing.T) {
	t.Parallel()
	clock := &at{time.Unix(1000, 0)}
	b := budget{now: clock.time}
	for i, c := range []struct {
		pass  time.Duration // before
		open  bool
		spend time.Duration
	}{
		{0, true, 100 * time.Millisecond},
		{0, true, 25 * time.Millisecond},
		{0, true, 75 * time.Millisecond}, // overdrawn by 75 ms, 1 of them repaid meanwhile
		{0, false, 0},
		{8 * time.Second, false, 0},
		{6 * time.Second, false, 0},
		{time.Second, true, 0},
		{time.Hour, true, 124 * time.Millisecond},
		{0, true, 4 * time.Millisecond},
		{0, false, 0},
		{-time.Hour, false, 0}, // a clock that goes back pays nothing
		{time.Second, true, 0},
	} {
		clock.now = clock.now.Add(c.pass)
		open := b.open()
		if open != c.open {
			t.Errorf("step %d: open %v, want %v (%v left)", i, open, c.open, b.left)
		}
		if open {
			start := clock.now
			clock.now = clock.now.Add(c.spend)
			b.charge(start)
		}
	}
}

// What the budget does not allow is counted, not remembered, and known when
// there is time again.
func TestBudgetBoundsLookups(t *testing.T) {
	t.Parallel()
	clock := &at{time.Unix(1000, 0)}
	procfs := proc(t, map[int]string{1: "1:name=systemd:/\n", 8: "1:name=systemd:/docker/" + idA + "\n"})
	r := resolver(t, Options{Root: onHost(procfs, "testdata/docker"), Now: clock.time}, "")
	r.forProcesses.open()
	r.forProcesses.left = 0
	for range 3 {
		if got := r.Lookup(exit(0, 8)).Label(); got != "" {
			t.Errorf("label %q", got)
		}
	}
	clock.now = clock.now.Add(time.Second)
	if got := r.Lookup(exit(0, 8)).Label(); got != "web" {
		t.Errorf("label %q when there is time again", got)
	}
	if got := r.Stats().Budget; got != 3 {
		t.Errorf("%d lookups refused, want 3", got)
	}
}

func TestConcurrentLookups(t *testing.T) {
	t.Parallel()
	processes := map[int]string{1: "1:name=systemd:/\n"}
	for pid := 2; pid < 40; pid++ {
		processes[pid] = "1:name=systemd:/docker/" + idA + "\n"
	}
	r := resolver(t, Options{Root: onHost(proc(t, processes), "testdata/docker"), CgroupRoot: host().CgroupRoot}, "")
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for i := range 400 {
				r.Lookup(exit(uint64(i%50), 2+i%38))
				r.Stats()
			}
		})
	}
	all.Go(func() {
		for range 20 {
			r.sweep(t.Context())
		}
	})
	all.Wait()
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	m := NewMetrics()
	if problems, err := metrictest.LintTable(m.Table()); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	batch := metric.NewBatch(0)
	m.Add(batch, Stats{})
	m.AddExecutables(batch, ExecutableStats{})
	added := batch.Len()
	batch.Fill(m.Table())
	if added != 9 || batch.Len() != added {
		t.Errorf("%d series and %d missing, want 9", added, batch.Len()-added)
	}
}

func TestKnownLookupAllocatesNothing(t *testing.T) {
	r := resolver(t, Options{CgroupRoot: host().CgroupRoot, Root: onHost(proc(t, map[int]string{1: "0::/\n"}), "testdata/docker")}, "")
	e := exit(1, 1)
	r.Lookup(e)
	if n := testing.AllocsPerRun(1000, func() { r.Lookup(e) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLookup(b *testing.B) {
	for name, again := range map[string]bool{"known": true, "miss": false} {
		b.Run(name, func(b *testing.B) {
			r := resolver(b, Options{CgroupRoot: host().CgroupRoot}, "/")
			r.processes.asked = false
			b.ReportAllocs()
			for range b.N {
				r.Lookup(exit(1, 0))
				if !again {
					delete(r.unified.byID, 1)
					r.forCgroups.left = budgetMost
				}
			}
		})
	}
}
