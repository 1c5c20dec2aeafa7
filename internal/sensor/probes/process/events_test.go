// SPDX-License-Identifier: Apache-2.0

package process

import (
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/sensor/event"
	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/testkit"
)

// runHere executes a program in the cgroup, as a child of the test, and
// returns its process id.
func runHere(t testing.TB, cgroup *testkit.Cgroup, attr *syscall.SysProcAttr, path string, args ...string) uint32 {
	t.Helper()
	dir, err := os.Open(cgroup.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if attr == nil {
		attr = &syscall.SysProcAttr{}
	}
	attr.UseCgroupFD, attr.CgroupFD = true, int(dir.Fd())
	cmd := exec.Command(path, args...)
	cmd.SysProcAttr = attr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return uint32(cmd.Process.Pid)
}

func loginUID(t testing.TB) uint32 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/loginuid")
	if err != nil {
		return event.NoID // no CONFIG_AUDIT
	}
	id, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(id)
}

func startWithEvents(t *testing.T, constants map[string]any) (*probe.Probe, *testkit.Cgroup) {
	t.Helper()
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	settings := testkit.WithEvents(cgroup.Only())
	for name, value := range constants {
		settings.Constants[name] = value
	}
	return testkit.StartProbe(t, host, New(), settings), cgroup
}

// One exec and one exit are one event each, with everything in it.
func TestExecEvent(t *testing.T) {
	p, cgroup := startWithEvents(t, nil)
	for name, c := range map[string]struct {
		path  string
		class uint8
		uid   uint32
	}{
		"system":     {put(t, folder(t, systemPlace), "program", exiting()), uint8(abi.ClassSystem), 0},
		"user":       {put(t, folder(t, userPlace), "program", exiting()), uint8(abi.ClassUser), 1234},
		"suspicious": {put(t, folder(t, tempPlace), "program", exiting()), uint8(abi.ClassSuspicious), 0},
		"hostile":    {put(t, folder(t, systemPlace), "a\n\x1b[31m\xff\"", exiting()), uint8(abi.ClassSystem), 0},
	} {
		t.Run(name, func(t *testing.T) {
			before := time.Duration(now(t))
			id := runHere(t, cgroup, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: c.uid, NoSetGroups: true}}, c.path, "secret")
			got := testkit.Events(t, p)
			if len(got) != 2 || got[0].Kind != event.Exec || got[1].Kind != event.Exit {
				t.Fatalf("%+v", got)
			}
			e, exit := got[0], got[1]
			if e.Monotonic < before || e.Monotonic > time.Duration(now(t)) || exit.Monotonic < e.Monotonic {
				t.Errorf("exec at %v, exit at %v, begun at %v", e.Monotonic, exit.Monotonic, before)
			}
			comm := filepath.Base(c.path)
			if string(e.Executable) != c.path || string(e.Comm) != comm || len(e.Arguments) != 0 || e.Truncated {
				t.Errorf("executable %q, comm %q, arguments %q, truncated %t", e.Executable, e.Comm, e.Arguments, e.Truncated)
			}
			serious := c.class == uint8(abi.ClassSuspicious)
			if e.Class != c.class || e.Serious != serious || (e.Severity == event.Critical) != serious {
				t.Errorf("class %d, serious %t, severity %s", e.Class, e.Serious, e.Severity)
			}
			for _, e := range got {
				if e.TGID != id || e.TID != id || e.Parent != uint32(os.Getpid()) || e.CgroupID != cgroup.ID {
					t.Errorf("%s: tgid %d, tid %d, parent %d, cgroup %d", e.Kind, e.TGID, e.TID, e.Parent, e.CgroupID)
				}
				if e.UID != c.uid || e.EUID != c.uid || e.LoginUID != loginUID(t) || e.Weight != 1 {
					t.Errorf("%s: uid %d, euid %d, loginuid %d, weight %d", e.Kind, e.UID, e.EUID, e.LoginUID, e.Weight)
				}
			}
			if exit.Class != c.class || exit.Serious {
				t.Errorf("exit: class %d, serious %t", exit.Class, exit.Serious)
			}
		})
	}
}

func now(t testing.TB) int64 {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	return ts.Nano()
}

// The path is the one from the root of the mount namespace, whatever root or
// working directory the process has.
func TestExecutablePaths(t *testing.T) {
	p, cgroup := startWithEvents(t, nil)
	w := cgroup.Start(t, "process")
	w.Do("exec", "0", "/bin/true") // its own exec is over when it answers
	testkit.Events(t, p)
	long := func(t *testing.T, dir string, length int) string {
		for length-len(dir) > 60+len("/program") {
			dir += "/" + strings.Repeat("d", 40)
		}
		dir += "/" + strings.Repeat("e", length-len(dir)-len("//program"))
		return put(t, below(t, dir, "", 0o755), "program", exiting())
	}
	for _, c := range []struct {
		name string
		// do makes the worker execute one program and returns its path; of one
		// that begins with a star, the event may have only the end.
		do func(t *testing.T) string
	}{
		{"relative", func(t *testing.T) string {
			dir := folder(t, userPlace)
			put(t, below(t, dir, "sub", 0o755), "program", exiting())
			w.Do("exec", "1", "dir="+dir, "sub/../sub/program")
			return dir + "/sub/program"
		}},
		{"symbolic link", func(t *testing.T) string {
			path := put(t, folder(t, userPlace), "program", exiting())
			if err := os.Symlink(path, path+"-link"); err != nil {
				t.Fatal(err)
			}
			w.Do("exec", "1", path+"-link")
			return path
		}},
		{"script", func(t *testing.T) string {
			path := put(t, folder(t, userPlace), "program", exiting())
			w.Do("exec", "1", script(t, folder(t, userPlace), "script", path))
			return path
		}},
		{"memfd", func(t *testing.T) string {
			w.Do("at", "1", "memfd", put(t, folder(t, userPlace), "program", exiting()))
			return "/memfd:"
		}},
		{"chroot", func(t *testing.T) string {
			root := folder(t, userPlace)
			put(t, below(t, root, "usr/bin", 0o755), "program", exiting())
			w.Do("exec", "1", "root="+root, "/usr/bin/program")
			return root + "/usr/bin/program"
		}},
		{"another mount namespace", func(t *testing.T) string {
			root := folder(t, userPlace)
			put(t, below(t, root, "usr/bin", 0o755), "program", exiting())
			w.Do("pivot", "1", root, "/usr/bin/program")
			return "/usr/bin/program"
		}},
		{"mounts", func(t *testing.T) string {
			dir := folder(t, userPlace)
			for range 4 {
				dir = below(t, dir, "mount/on", 0o755)
				mount(t, "tmpfs", dir, "tmpfs", 0, "mode=755")
			}
			w.Do("exec", "1", put(t, dir, "program", exiting()))
			return dir + "/program"
		}},
		{"bind mount of a file", func(t *testing.T) string {
			path := put(t, folder(t, userPlace), "program", nil)
			mount(t, put(t, folder(t, userPlace), "other", exiting()), path, "", unix.MS_BIND, "")
			w.Do("exec", "1", path)
			return path
		}},
		{"name as long as can be", func(t *testing.T) string {
			path := put(t, folder(t, userPlace), strings.Repeat("n", 255), exiting())
			w.Do("exec", "1", path)
			return "*" + path
		}},
		{"255 bytes", func(t *testing.T) string {
			path := long(t, folder(t, userPlace), 255)
			w.Do("exec", "1", path)
			return path
		}},
		{"400 bytes", func(t *testing.T) string {
			path := long(t, folder(t, userPlace), 400)
			w.Do("exec", "1", path)
			return "*" + path
		}},
		{"40 components", func(t *testing.T) string {
			path := put(t, below(t, folder(t, userPlace), strings.Repeat("d/", 40), 0o755), "program", exiting())
			w.Do("exec", "1", path)
			return "*" + path
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			want, cut := strings.CutPrefix(c.do(t), "*")
			got := testkit.OfKind(testkit.Events(t, p), event.Exec)
			if len(got) != 1 {
				t.Fatalf("%d execs: %+v", len(got), got)
			}
			path := string(got[0].Executable)
			switch {
			case got[0].Truncated != cut:
				t.Errorf("truncated %t, want %t: %q", got[0].Truncated, cut, path)
			case !cut && path != want && (want != "/memfd:" || !strings.HasPrefix(path, want)):
				t.Errorf("%q, want %q", path, want)
			case cut && (!strings.HasSuffix(want, "/"+path) || len(path) < 60):
				t.Errorf("%q is not the end of %q", path, want)
			}
		})
	}
}

func TestArguments(t *testing.T) {
	for name, c := range map[string]struct {
		on    bool
		given []string
		want  string
		cut   bool
	}{
		"off":  {false, []string{"-p", "secret"}, "", false},
		"on":   {true, []string{"-p", "a\nb\xff", "", "c"}, "-p\x00a\nb\xff\x00\x00c", false},
		"long": {true, []string{strings.Repeat("x", 1000)}, strings.Repeat("x", 1000), true},
	} {
		t.Run(name, func(t *testing.T) {
			p, cgroup := startWithEvents(t, map[string]any{"arguments": c.on})
			path := put(t, folder(t, userPlace), "p", exiting())
			runHere(t, cgroup, nil, path, c.given...)
			got := testkit.OfKind(testkit.Events(t, p), event.Exec)
			if len(got) != 1 {
				t.Fatalf("%+v", got)
			}
			want := ""
			if c.on {
				want = path + "\x00" + c.want
			}
			if c.cut {
				want = want[:abi.ArgumentsMax]
			}
			if string(got[0].Arguments) != want || got[0].Truncated != c.cut || string(got[0].Executable) != path {
				t.Errorf("%q %q, truncated %t, want %q", got[0].Executable, got[0].Arguments, got[0].Truncated, want)
			}
		})
	}
}

// A suspicious exec comes through while nobody reads and the frequent ring is
// full; and a flood of them ends at the budget. Nothing goes uncounted.
func TestSeriousRing(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	settings := testkit.WithEvents(cgroup.Only())
	settings.Constants["budget_per_window"] = uint32(15)       // less than a busy machine makes
	settings.MaxEntries = map[string]uint32{"events": 1 << 16} // full within a second
	p := testkit.StartProbe(t, host, New(), settings)
	w := startIn(t, cgroup, userPlace)
	usual := put(t, folder(t, userPlace), "usual", exiting())
	suspicious := put(t, folder(t, tempPlace), "suspicious", exiting())
	lost := func(reason int) int64 { return testkit.Sum(t, p, "events_lost_total")[reason] }
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		w.Do("exec", "500", usual)
		if lost(int(abi.LossRingFull)) > 0 {
			break
		}
	}
	full := lost(int(abi.LossRingFull))
	if full == 0 {
		t.Fatal("the ring is not full")
	}
	w.Do("exec", "3", suspicious)
	time.Sleep(150 * time.Millisecond) // the next window
	w.Do("exec", "400", suspicious)
	if n := lost(int(abi.LossBudget)); n == 0 {
		t.Error("a flood of suspicious execs is not held back")
	}
	got := testkit.Events(t, p)
	serious := slices.DeleteFunc(slices.Clone(got), func(e event.Event) bool { return !e.Serious })
	if len(serious) < 3 || string(serious[2].Executable) != suspicious {
		t.Errorf("%d serious events: %+v", len(serious), serious)
	}
	produced := testkit.Sum(t, p, "events_total")[abi.ProbeProcess]
	sampled := testkit.Sum(t, p, "events_sampled_total")[abi.ProbeProcess]
	if all := int64(len(got)) + lost(int(abi.LossRingFull)) + lost(int(abi.LossBudget)); sampled != 0 || produced != all {
		t.Errorf("%d produced, %d sampled, %d delivered or lost", produced, sampled, all)
	}
}

// Sampling keeps one in ten, and those kept stand for all.
func TestSampled(t *testing.T) {
	const rate, each, chunks = 10, rounds, 10
	p, cgroup := startWithEvents(t, map[string]any{"sample_rate": uint32(rate), "detailed": false})
	w := startIn(t, cgroup, userPlace)
	path := put(t, folder(t, userPlace), "program", exiting())
	testkit.Events(t, p)
	before := testkit.Sum(t, p, "events_total")[abi.ProbeProcess]
	left := testkit.Sum(t, p, "events_sampled_total")[abi.ProbeProcess]
	weights, delivered := int64(0), int64(0)
	for range chunks {
		w.Do("exec", strconv.Itoa(each), path)
		for _, e := range testkit.Events(t, p) {
			if e.Weight != rate || e.Kind != event.Exec {
				t.Errorf("%s of weight %d", e.Kind, e.Weight)
			}
			weights += int64(e.Weight)
			delivered++
		}
	}
	produced := testkit.Sum(t, p, "events_total")[abi.ProbeProcess] - before
	sampled := testkit.Sum(t, p, "events_sampled_total")[abi.ProbeProcess] - left
	if produced != each*chunks || produced != delivered+sampled {
		t.Errorf("%d produced, %d delivered, %d sampled, want %d produced", produced, delivered, sampled, each*chunks)
	}
	if off := 7 * math.Sqrt(each*chunks*(rate-1)); math.Abs(float64(weights-each*chunks)) > off { // standard deviations
		t.Errorf("the weights sum up to %d, want about %d", weights, each*chunks)
	}
}

// legacyHost is one with a hierarchy of cgroup version 1. The machines of
// tools/testkernels have none; there it may be mounted. Version 2 does not need
// that controller.
func legacyHost(t *testing.T) *probe.Host {
	t.Helper()
	host := testkit.Inspect(t)
	if host.Legacy.Root != "" || !testkit.InMachine() {
		return host
	}
	sysfs := t.TempDir()
	place := filepath.Join(sysfs, "fs/cgroup/freezer")
	if err := os.MkdirAll(place, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("cgroup", place, "cgroup", 0, "freezer"); err != nil {
		t.Fatalf("mount a hierarchy of version 1: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(place, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	host.Legacy = probe.Inspect("/proc", sysfs, "/").Legacy
	return host
}

// Events have the id of the cgroup of version 1 where they happened, and none
// if the programs are not told a controller.
func TestLegacyCgroupID(t *testing.T) {
	host := legacyHost(t)
	place := testkit.NewLegacyCgroup(t, host, "security-exporter-process/place")
	for name, c := range map[string]struct {
		index uint32
		want  uint64
	}{
		"told":     {host.Legacy.Index, place.ID},
		"not told": {event.NoID, 0},
	} {
		t.Run(name, func(t *testing.T) {
			cgroup := testkit.NewCgroup(t, host)
			settings := testkit.WithEvents(cgroup.Only())
			settings.Constants["legacy_controller"] = c.index
			p := testkit.StartProbe(t, host, New(), settings)
			w := cgroup.Start(t, "process")
			w.Do("exec", "0", "/bin/true") // its own exec is over when it answers
			place.Join(t, w.PID())
			testkit.Events(t, p)
			w.Do("exec", "1", "/bin/true")
			got := testkit.Events(t, p)
			if len(got) != 2 {
				t.Fatalf("%+v, want an exec and an exit", got)
			}
			for _, e := range got {
				if e.LegacyCgroupID != c.want || e.CgroupID != cgroup.ID {
					t.Errorf("%s: cgroups %d and %d, want %d and %d", e.Kind, e.CgroupID, e.LegacyCgroupID, cgroup.ID, c.want)
				}
			}
		})
	}
}
