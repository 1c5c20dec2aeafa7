// SPDX-License-Identifier: Apache-2.0

package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/testkit"
)

// entries are both parts of the process table.
func entries(t testing.TB, p *probe.Probe) map[uint32]abi.Process {
	t.Helper()
	out := map[uint32]abi.Process{}
	enter := func(tgid uint32, process abi.Process) {
		if _, twice := out[tgid]; twice {
			t.Errorf("process %d is in the table twice", tgid)
		}
		out[tgid] = process
	}
	var key uint32
	var process abi.Process
	beside := p.Map("processes").Iterate()
	for beside.Next(&key, &process) {
		enter(key, process)
	}
	var slot abi.ProcessSlot
	slots := p.Map("process_slots").Iterate()
	for slots.Next(&key, &slot) {
		if slot.Tgid != 0 {
			enter(slot.Tgid, slot.Process)
		}
	}
	if err := errors.Join(beside.Err(), slots.Err()); err != nil {
		t.Fatal(err)
	}
	return out
}

// occupy gives every slot to a process that cannot be: its id is above all.
func occupy(t testing.TB, p *probe.Probe) {
	t.Helper()
	const idsMax = 1 << 22
	slots := p.Map("process_slots")
	for index := range slots.MaxEntries() {
		if err := slots.Put(index, &abi.ProcessSlot{Tgid: idsMax + index}); err != nil {
			t.Fatal(err)
		}
	}
}

// 8 threads fork and execute on all CPUs at once. The recursion guard is
// looked at when the probe is closed.
func TestHammer(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	p := testkit.StartProbe(t, host, New(), cgroup.Only())
	w := startIn(t, cgroup, userPlace)
	const n = 16 * rounds
	path := put(t, folder(t, systemPlace), "program", exiting())
	watch := newWatch(t, p)
	w.Do("hammer", strconv.Itoa(n), path)
	watch.expect(t, perClass{"system": n}, perClass{"system": n, "user": n}, nil)
	if got := entries(t, p); len(got) != 1 {
		t.Errorf("%d processes in the table, want the worker", len(got))
	}
}

// A full table: execs and exits are exact, and what did not fit is counted,
// once at the fork and once at the exec.
func TestTableFull(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	settings := cgroup.Only()
	const room, n = 64, 200
	settings.MaxEntries = map[string]uint32{"processes": room, "process_slots": 1}
	p := testkit.StartProbe(t, host, New(), settings)
	if !p.Runs("on_sched_process_exit_group_dead") && !p.Runs("on_kprobe_taskstats_exit") {
		t.Skip("needs 6.16: before, the exit of a process that is not in the table is not counted")
	}
	w := startIn(t, cgroup, userPlace)
	watch := newWatch(t, p)
	w.Do("hold", strconv.Itoa(room-1), "stdin=pipe", put(t, folder(t, systemPlace), "program", blocking()))
	watch.expect(t, perClass{"system": room - 1}, nil, perClass{"system": room - 1})
	w.Do("hold", strconv.Itoa(n), "stdin=pipe", put(t, folder(t, userPlace), "program", blocking()))
	w.Do("hold", strconv.Itoa(n), "stdin=tcp4", put(t, folder(t, systemPlace), "sh", blocking()))
	w.Do("forks", strconv.Itoa(n), "0")
	w.Do("let-go")
	all := perClass{"system": room - 1, "user": n, "suspicious": n}
	forked := perClass{"system": room - 1, "user": 2 * n, "suspicious": n}
	watch.Expect(t, map[string]map[int]int64{
		execs: all.byIndex(t), exits: forked.byIndex(t),
		"map_evictions": {int(abi.TableProcesses): 5 * n},
	})
	// there is room again
	target{make: in(tempPlace, "program")}.run(t, p, w, "suspicious")
}

// Those whose slot is taken stand beside the slots, and count the same.
func TestSlotsTaken(t *testing.T) {
	host := testkit.Inspect(t)
	if !host.Slots {
		t.Skip("needs Linux 6.2: there are no slots")
	}
	cgroup := testkit.NewCgroup(t, host)
	p := testkit.StartProbe(t, host, New(), cgroup.Only())
	w := startIn(t, cgroup, userPlace)
	hold := func(class, place string) {
		watch := newWatch(t, p)
		w.Do("hold", strconv.Itoa(rounds), "stdin=pipe", put(t, folder(t, place), "program", blocking()))
		watch.expect(t, perClass{class: rounds}, nil, perClass{class: rounds})
	}
	count := func(name string) (n int) {
		for all, key, value := p.Map(name).Iterate(), []byte{}, []byte{}; all.Next(&key, &value); n++ {
		}
		return n
	}
	hold("system", systemPlace)
	if n := count("processes"); n != 1 {
		t.Errorf("%d processes have no slot, want the worker, which is older", n)
	}
	slotted := entries(t, p)
	occupy(t, p)
	for tgid, process := range slotted { // back in their places
		if err := p.Map("process_slots").Put(tgid%abi.ProcessSlots, &abi.ProcessSlot{Tgid: tgid, Process: process}); err != nil {
			t.Fatal(err)
		}
	}
	hold("user", userPlace)
	if n := count("processes"); n != 1+rounds {
		t.Errorf("%d processes have no slot, want %d", n, 1+rounds)
	}
	runTargets(t, p, w, basic)
	watch := newWatch(t, p)
	w.Do("forks", strconv.Itoa(rounds), "0")
	watch.expect(t, nil, perClass{"user": rounds}, nil)
	w.Do("let-go")
	gone := perClass{"system": rounds, "user": 2 * rounds}
	watch.expect(t, nil, gone, perClass{"system": -rounds, "user": -rounds})
	if n := count("processes"); n != 1 {
		t.Errorf("%d processes have no slot, want the worker", n)
	}
}

// Processes older than the probe are active at once, and their exits counted.
func TestOlderProcesses(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	w := startIn(t, cgroup, userPlace)
	for _, args := range [][]string{
		{"stdin=pipe", put(t, folder(t, systemPlace), "program", blocking())},
		{"stdin=pipe", put(t, folder(t, userPlace), "program", blocking())},
		{"stdin=pipe", put(t, folder(t, tempPlace), "program", blocking())},
		{"stdin=pipe", "namespace=pid", put(t, folder(t, userPlace), "program", blocking())},
		{"stdin=tcp4", put(t, folder(t, systemPlace), "python3.11", blocking())},
		{"stdout=tcp6", "stdin=pipe", put(t, folder(t, systemPlace), "bash", blocking())},
		// a script in /tmp is no longer known: docs/hooks.md says so
		{"stdin=pipe", script(t, folder(t, tempPlace), "script", put(t, folder(t, systemPlace), "program", blocking()))},
	} {
		w.Do("hold", append([]string{strconv.Itoa(rounds)}, args...)...)
	}
	w.Do("hold", "1", "stdin=tcp4", "stdout=tcp4", "/bin/sh")
	want := perClass{"system": 2 * rounds, "user": rounds, "container": rounds, "suspicious": 3*rounds + 1}

	p := testkit.StartProbe(t, host, New(), cgroup.Only())
	live := perClass{"system": 2 * rounds, "user": rounds + 1, "container": rounds, "suspicious": 3*rounds + 1}.byIndex(t)
	for class, n := range testkit.Sum(t, p, active) {
		if n != live[class] {
			t.Errorf("active[%d] is %d at the start, want %d", class, n, live[class])
		}
	}
	watch := newWatch(t, p)
	w.Do("let-go")
	gone := perClass{}
	for class, n := range want {
		gone[class] = -n
	}
	watch.expect(t, nil, want, gone)
	w.Do("ping")
}

// A process whose end no program saw is taken out of the table, one that lives stays.
func TestUnseenEnd(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	p := testkit.StartProbe(t, host, New(), cgroup.Only())
	if !p.Runs("walk_processes") {
		t.Skip("needs Linux 6.2")
	}
	w := startIn(t, cgroup, userPlace)
	w.Do("hold", strconv.Itoa(rounds), "stdin=pipe", put(t, folder(t, systemPlace), "program", blocking()))
	seen := entries(t, p)
	w.Do("let-go")
	watch := newWatch(t, p)
	back := int64(0)
	for tgid, process := range seen {
		if tgid == uint32(w.PID()) {
			continue
		}
		var err error
		if host.Slots && tgid%2 == 0 {
			err = p.Map("process_slots").Put(tgid%abi.ProcessSlots, &abi.ProcessSlot{Tgid: tgid, Process: process})
		} else {
			err = p.Map("processes").Put(tgid, &process)
		}
		if err != nil {
			t.Fatal(err)
		}
		back++
	}
	if back != rounds {
		t.Fatalf("%d processes were in the table, want %d", back, rounds)
	}
	if _, err := p.Iterate("walk_processes", 1); err != nil {
		t.Fatal(err)
	}
	// they were put back behind the gauge's back
	watch.expect(t, nil, nil, perClass{"system": -rounds})
	if left := entries(t, p); len(left) != 1 || left[uint32(w.PID())] != seen[uint32(w.PID())] {
		t.Errorf("%d processes left in the table, want the worker", len(left))
	}
	w.Do("ping")
}

// Kernel threads are system, and the whole host is counted without drift.
func TestWholeHost(t *testing.T) {
	host := testkit.Inspect(t)
	p := testkit.StartProbe(t, host, New(), probe.Settings{})
	known := entries(t, p)
	threads := 0
	for _, tgid := range kernelThreads(t) {
		process, ok := known[tgid]
		if !ok {
			continue // younger than the table's copy
		}
		threads++
		if got := abi.Classes[process.Class]; got != "system" {
			t.Errorf("kernel thread %d is %s", tgid, got)
		}
	}
	if threads == 0 {
		t.Error("no kernel thread in the table")
	}
	if _, ok := known[uint32(os.Getpid())]; !ok {
		t.Error("this process is not in the table")
	}
}

func kernelThreads(t testing.TB) []uint32 {
	t.Helper()
	const kernelThread = 0x00200000 // PF_KTHREAD
	var out []uint32
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		tgid, fields := stat(path)
		if len(fields) < 7 {
			continue // gone
		}
		if flags, err := strconv.ParseUint(fields[6], 10, 64); err == nil && flags&kernelThread != 0 {
			out = append(out, tgid)
		}
	}
	return out
}

// stat is the id, and the fields from the state on (proc_pid_stat(5)).
func stat(path string) (uint32, []string) {
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, nil
	}
	var tgid uint32
	if _, err := fmt.Sscan(string(content), &tgid); err != nil {
		return 0, nil
	}
	end := strings.LastIndexByte(string(content), ')')
	return tgid, strings.Fields(string(content[end+1:]))
}

// withRung is the probe with just one rung for its hooks, and for the look at
// scripts the one of the same kind; by classic tracepoints none, as on the
// kernels that have nothing better.
func withRung(rung int) *probe.Spec {
	spec := New()
	hooks, scripts := &spec.Parts[0], &spec.Parts[1]
	hooks.Rungs = hooks.Rungs[rung : rung+1]
	kind, _, _ := strings.Cut(hooks.Rungs[0].Hook, "/")
	scripts.Rungs = slices.DeleteFunc(scripts.Rungs, func(r probe.Rung) bool { return !strings.HasPrefix(r.Hook, kind+"/") })
	return spec
}

// startRung starts the probe with one rung, if it is none of kprobes that the
// kernel cannot make.
func startRung(t *testing.T, host *probe.Host, cgroup *testkit.Cgroup, rung int) *probe.Probe {
	t.Helper()
	if strings.HasPrefix(rungs()[rung].Hook, "kprobe/") && !host.HasKprobes() {
		t.Skip("needs a kernel with kprobes")
	}
	return testkit.StartProbe(t, host, withRung(rung), cgroup.Only())
}

// Each rung that this kernel takes counts the same as the first, which the
// other tests use.
func TestRungs(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	for rung, r := range rungs() {
		if r.Requires != nil {
			continue // of the two by BTF, TestExitArguments
		}
		t.Run(r.Hook, func(t *testing.T) {
			p := startRung(t, host, cgroup, rung)
			w := startIn(t, cgroup, userPlace)
			runTargets(t, p, w, slices.Concat(basic, scripts))
			n := strconv.Itoa(rounds)
			watch := newWatch(t, p)
			w.Do("forks", n, "0")
			watch.expect(t, nil, perClass{"user": rounds}, nil)
			w.Do("forks", n, strconv.Itoa(unix.CLONE_NEWPID))
			watch.expect(t, nil, perClass{"user": rounds, "container": rounds}, nil)
			w.Do("fail", n, "/missing", "ENOENT")
			w.Do("threads", n)
			watch.expect(t, nil, perClass{"user": rounds, "container": rounds}, nil)
			w.Do("unshare", n)
			class := perClass{"user": rounds, "container": 2 * rounds}
			if strings.HasPrefix(r.Hook, "tracepoint/") {
				class = perClass{"user": 2 * rounds, "container": rounds} // docs/hooks.md says so
			}
			watch.expect(t, nil, class, nil)
		})
	}
}

// One of the two rungs by BTF is this kernel's, and only one.
func TestExitArguments(t *testing.T) {
	host := testkit.Inspect(t)
	fit := 0
	for _, r := range rungs()[:2] {
		if r.Requires(host) == nil {
			fit++
		}
	}
	if fit != 1 {
		t.Errorf("%d rungs fit this kernel, want 1", fit)
	}
}
