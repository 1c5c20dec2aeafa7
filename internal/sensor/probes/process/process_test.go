// SPDX-License-Identifier: Apache-2.0

package process

import (
	"maps"
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

const rounds = testkit.Rounds

func TestMain(m *testing.M) {
	testkit.Main(m, map[string]testkit.Worker{"process": (&worker{}).actions()})
}

// perClass is a number for each class that has one, by its label value.
type perClass map[string]int64

func (c perClass) byIndex(t testing.TB) map[int]int64 {
	t.Helper()
	out := map[int]int64{}
	for _, name := range slices.Sorted(maps.Keys(c)) {
		index := slices.Index(abi.Classes, name)
		if index < 0 {
			t.Fatalf("no class %s", name)
		}
		out[index] = c[name]
	}
	return out
}

const (
	execs  = "process_exec_total"
	exits  = "process_exit_total"
	active = "process_active_count"
)

type watch struct{ *testkit.Watch }

func newWatch(t testing.TB, p *probe.Probe) watch {
	t.Helper()
	return watch{testkit.NewWatch(t, p, execs, exits, active, "map_evictions")}
}

// expect: nothing else has changed since the watch began.
func (w watch) expect(t testing.TB, exec, exit, live perClass) {
	t.Helper()
	w.Expect(t, map[string]map[int]int64{execs: exec.byIndex(t), exits: exit.byIndex(t), active: live.byIndex(t)})
}

// startIn starts a worker from a copy of the test binary in a place, which
// gives it its class.
func startIn(t testing.TB, cgroup *testkit.Cgroup, place string) *testkit.Process {
	t.Helper()
	path := copyOfWorker(t, folder(t, place))
	w := cgroup.Start(t, "process")
	w.Do("become", path)
	w.Do("become", path) // again: the classic tracepoint also looks at the image before
	w.Do("ping")
	return w
}

func copyOfWorker(t testing.TB, dir string) string {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	return put(t, dir, "worker", self)
}

// target is what a worker executes, and the class it must get.
type target struct {
	name  string
	class string
	// make puts the program in place and returns what the worker is told,
	// without the number of rounds.
	make func(t *testing.T) []string
}

func (c target) run(t *testing.T, p *probe.Probe, w *testkit.Process, class string) {
	t.Helper()
	args := c.make(t)
	watch := newWatch(t, p)
	w.Do(args[0], append([]string{strconv.Itoa(rounds)}, args[1:]...)...)
	watch.expect(t, perClass{class: rounds}, perClass{class: rounds}, nil)
}

func runTargets(t *testing.T, p *probe.Probe, w *testkit.Process, targets []target) {
	for _, c := range targets {
		t.Run(c.name, func(t *testing.T) { c.run(t, p, w, c.class) })
	}
}

// in is a program in a new folder of a place.
func in(place, name string) func(t *testing.T) []string {
	return func(t *testing.T) []string { return []string{"exec", put(t, folder(t, place), name, exiting())} }
}

// basic are the ways to execute a program, and the plain places.
var basic = []target{
	{name: "/bin/true", class: "system", make: func(*testing.T) []string { return []string{"exec", "/bin/true"} }},
	{name: "/usr/local/bin", class: "system", make: in(systemPlace, "program")},
	{name: "/opt", class: "user", make: in(userPlace, "program")},
	{name: "/home", class: "user", make: in("/home", "program")},
	{name: "/tmp", class: "suspicious", make: in(tempPlace, "program")},
	{name: "/var/tmp", class: "suspicious", make: in("/var/tmp", "program")},
	{name: "/dev/shm", class: "suspicious", make: in("/dev/shm", "program")},
	{name: "relative path", class: "user", make: func(t *testing.T) []string {
		dir := folder(t, userPlace)
		put(t, dir, "program", exiting())
		return []string{"exec", "dir=" + dir, "./program"}
	}},
	{name: "relative path out of a safe place", class: "suspicious", make: func(t *testing.T) []string {
		path := put(t, folder(t, tempPlace), "program", exiting())
		return []string{"exec", "dir=/usr/bin", "../.." + path}
	}},
	{name: "symlink", class: "suspicious", make: func(t *testing.T) []string {
		link := filepath.Join(folder(t, systemPlace), "link")
		if err := os.Symlink(put(t, folder(t, tempPlace), "program", exiting()), link); err != nil {
			t.Fatal(err)
		}
		return []string{"exec", link}
	}},
	{name: "execveat", class: "user", make: func(t *testing.T) []string {
		return []string{"at", "dirfd", put(t, folder(t, userPlace), "program", exiting())}
	}},
	{name: "fexecve", class: "user", make: func(t *testing.T) []string {
		return []string{"at", "fd", put(t, folder(t, userPlace), "program", exiting())}
	}},
	{name: "memfd", class: "suspicious", make: func(t *testing.T) []string {
		return []string{"at", "memfd", put(t, folder(t, systemPlace), "program", exiting())}
	}},
	{name: "deleted", class: "suspicious", make: func(t *testing.T) []string {
		return []string{"at", "deleted", put(t, folder(t, systemPlace), "program", exiting())}
	}},
	{name: "deleted, but another link is left", class: "suspicious", make: func(t *testing.T) []string {
		dir := folder(t, systemPlace)
		path := put(t, dir, "program", exiting())
		if err := os.Link(path, filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
		return []string{"at", "deleted", path}
	}},
	{name: "script in /home", class: "system", make: func(t *testing.T) []string {
		return []string{"exec", script(t, folder(t, "/home"), "script", put(t, folder(t, systemPlace), "program", exiting()))}
	}},
	{name: "script in /tmp", class: "suspicious", make: func(t *testing.T) []string {
		return []string{"exec", script(t, folder(t, tempPlace), "script", put(t, folder(t, systemPlace), "program", exiting()))}
	}},
	{name: "new pid namespace", class: "container", make: func(t *testing.T) []string {
		return []string{"exec", "namespace=pid", put(t, folder(t, systemPlace), "program", exiting())}
	}},
	{name: "new pid namespace, from /tmp", class: "suspicious", make: func(t *testing.T) []string {
		return []string{"exec", "namespace=pid", put(t, folder(t, tempPlace), "program", exiting())}
	}},
	{name: "shell on a TCP socket", class: "suspicious", make: on("sh", "stdin=tcp4")},
}

func TestClasses(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	p := testkit.StartProbe(t, host, New(), cgroup.Only())
	w := startIn(t, cgroup, userPlace)
	for name, targets := range map[string][]target{
		"basic": basic, "places": inPlaces, "scripts": scripts, "sockets": onSockets,
	} {
		t.Run(name, func(t *testing.T) { runTargets(t, p, w, targets) })
	}
}

// What the worker holds is active in its class as long as it lives.
func TestActive(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	p := testkit.StartProbe(t, host, New(), cgroup.Only())
	w := startIn(t, cgroup, userPlace)
	want := perClass{"system": rounds, "user": rounds, "container": rounds, "suspicious": rounds}
	watch := newWatch(t, p)
	for _, args := range [][]string{
		{"stdin=pipe", put(t, folder(t, systemPlace), "program", blocking())},
		{"stdin=pipe", put(t, folder(t, userPlace), "program", blocking())},
		{"stdin=pipe", "namespace=pid", put(t, folder(t, userPlace), "program", blocking())},
		{"stdin=pipe", put(t, folder(t, tempPlace), "program", blocking())},
	} {
		w.Do("hold", append([]string{strconv.Itoa(rounds)}, args...)...)
	}
	watch.expect(t, want, nil, want)
	live := int64(0)
	for _, n := range testkit.Sum(t, p, active) {
		live += n
	}
	capacity := int(abi.ProcessesWithoutSlots)
	if host.Slots {
		capacity = int(abi.ProcessSlots + abi.ProcessesBesideSlots)
	}
	table := probe.Table{Name: "processes", Entries: int(live), Capacity: capacity}
	if got := New().Tables(p); len(got) != 1 || got[0] != table || live != 4*rounds+1 {
		t.Errorf("tables %+v, want %+v with %d entries", got, table, 4*rounds+1)
	}
	w.Do("let-go")
	watch.expect(t, want, want, nil)
}

// A child without an exec has its parent's class, and so has one whose exec
// failed.
func TestForks(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	p := testkit.StartProbe(t, host, New(), cgroup.Only())
	for place, class := range map[string]string{systemPlace: "system", userPlace: "user", tempPlace: "suspicious"} {
		t.Run(class, func(t *testing.T) {
			w := startIn(t, cgroup, place)
			defer w.Stop()
			watch := newWatch(t, p)
			w.Do("forks", strconv.Itoa(rounds), "0")
			watch.expect(t, nil, perClass{class: rounds}, nil)
			contained := "container"
			if class == "suspicious" {
				contained = class
			}
			for _, args := range [][]string{
				{"forks", strconv.Itoa(rounds), strconv.Itoa(unix.CLONE_NEWPID)},
				{"unshare", strconv.Itoa(rounds)},
			} {
				watch = newWatch(t, p)
				w.Do(args[0], args[1:]...)
				watch.expect(t, nil, perClass{contained: rounds}, nil)
			}
			watch = newWatch(t, p)
			w.Do("threads", strconv.Itoa(rounds))
			watch.expect(t, nil, nil, nil)
			w.Stop()
			watch.expect(t, nil, perClass{class: 1}, perClass{class: -1})
		})
	}
}

func TestFailedExecs(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	p := testkit.StartProbe(t, host, New(), cgroup.Only())
	w := startIn(t, cgroup, userPlace)
	dir := folder(t, userPlace)
	program := put(t, dir, "not-executable", exiting())
	if err := os.Chmod(program, 0o644); err != nil {
		t.Fatal(err)
	}
	for path, errno := range map[string]string{
		dir + "/missing":                       "ENOENT",
		program:                                "EACCES",
		dir:                                    "EACCES",
		put(t, dir, "text", []byte("text\n")):  "ENOEXEC",
		put(t, dir, "half", exiting()[:60]):    "ENOEXEC",
		script(t, dir, "script", dir+"/none"):  "ENOENT",
		program + "/" + strings.Repeat("x", 5): "ENOTDIR",
	} {
		t.Run(errno+" "+filepath.Base(path), func(t *testing.T) {
			watch := newWatch(t, p)
			w.Do("fail", strconv.Itoa(rounds), path, errno)
			watch.expect(t, nil, nil, nil)
		})
	}
	t.Run("in a child", func(t *testing.T) {
		watch := newWatch(t, p)
		for range rounds {
			if _, err := w.Try("exec", "1", dir+"/missing"); err == nil {
				t.Fatal("a file that is not there was executed")
			}
		}
		watch.expect(t, nil, perClass{"user": rounds}, nil)
	})
	// an image in the kernel's half of the address space: too late to return
	t.Run("after the point of no return", func(t *testing.T) {
		path := put(t, dir, "killed", image64(0xffff_8000_0000_0000, exitCode()))
		watch := newWatch(t, p)
		for range rounds {
			if _, err := w.Try("exec", "1", path); err == nil {
				t.Fatal("an impossible image was executed")
			}
		}
		watch.expect(t, nil, perClass{"user": rounds}, nil)
	})
}

// One process executes 500 programs one after another, of three classes.
func TestExecAgain(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	p := testkit.StartProbe(t, host, New(), cgroup.Only())
	w := startIn(t, cgroup, userPlace)
	env, err := os.ReadFile("/usr/bin/env")
	if err != nil {
		t.Fatal(err)
	}
	var argv []string
	const each = 20
	for i := range rounds / each * 3 {
		place := []string{systemPlace, userPlace, tempPlace}[i%3]
		argv = append(argv, put(t, folder(t, place), "env", env))
	}
	argv = append(slices.Repeat(argv, each), put(t, folder(t, tempPlace), "program", exiting()))
	watch := newWatch(t, p)
	w.Do("exec", append([]string{"1"}, argv...)...)
	watch.expect(t, perClass{"system": rounds, "user": rounds, "suspicious": rounds + 1}, perClass{"suspicious": 1}, nil)
}

// The worker executes itself from a thread that is not the leader: the thread
// takes the leader's id, and all others end without being counted.
func TestExecFromThread(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	p := testkit.StartProbe(t, host, New(), cgroup.Only())
	w := startIn(t, cgroup, userPlace)
	paths := []string{copyOfWorker(t, folder(t, systemPlace)), copyOfWorker(t, folder(t, userPlace))}
	watch := newWatch(t, p)
	for i := range rounds {
		w.Do("become", paths[i%2])
	}
	w.Do("ping")
	watch.expect(t, perClass{"system": rounds / 2, "user": rounds / 2}, nil, nil)
}

func TestTwoCPUs(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	p := testkit.StartProbe(t, host, New(), cgroup.Only())
	w := startIn(t, cgroup, userPlace)
	path := put(t, folder(t, systemPlace), "program", blocking())
	watch := newWatch(t, p)
	w.Do("cpus", strconv.Itoa(rounds), path)
	watch.expect(t, perClass{"system": rounds}, perClass{"system": rounds}, nil)
}
