// SPDX-License-Identifier: Apache-2.0

package file

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/config"
	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/testkit"
)

const rounds = testkit.Rounds

func TestMain(m *testing.M) {
	testkit.Main(m, map[string]testkit.Worker{"file": {"repeat": repeat, "threads": threads}})
}

// Indices into file_access_total.
func counter(severity uint8, operation int) int { return int(severity)*len(abi.Operations) + operation }

var (
	criticalRead  = counter(uint8(abi.SeverityCritical), 0)
	criticalWrite = counter(uint8(abi.SeverityCritical), 1)
	warningRead   = counter(uint8(abi.SeverityWarning), 0)
	warningWrite  = counter(uint8(abi.SeverityWarning), 1)
	infoRead      = counter(uint8(abi.SeverityInfo), 0)
)

// The watched folder. Each test has one of its own.
func rules(dir string) []config.FileRule {
	return []config.FileRule{
		{Path: dir + "/secret", Read: config.SeverityCritical, Write: config.SeverityCritical},
		{Path: dir + "/later", Read: config.SeverityCritical, Write: config.SeverityCritical},
		{Path: dir + "/writes", Write: config.SeverityCritical},
		{Path: dir + "/folder/", Read: config.SeverityWarning, Write: config.SeverityWarning},
		{Path: dir + "/folder/info", Read: config.SeverityInfo},
		{Path: dir + "/key-*.pem", Read: config.SeverityInfo},
		{Path: dir + "/not/yet/there", Read: config.SeverityInfo, Write: config.SeverityWarning},
		{Path: dir + "/link", Read: config.SeverityInfo, Write: config.SeverityWarning},
	}
}

func setup(t *testing.T, dir string) (*probe.Probe, *testkit.Process) {
	t.Helper()
	return setupWith(t, dir, nil, (*testkit.Cgroup).Only)
}

func withEvents(c *testkit.Cgroup) probe.Settings { return testkit.WithEvents(c.Only()) }

// setupWith starts the worker with attributes, and the probe with the settings
// for the worker's cgroup.
func setupWith(t *testing.T, dir string, attributes *syscall.SysProcAttr, settings func(*testkit.Cgroup) probe.Settings) (*probe.Probe, *testkit.Process) {
	t.Helper()
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	for _, name := range []string{"secret", "writes", "plain", "partner", "secretfoo", "key-1.pem", "target"} {
		write(t, filepath.Join(dir, name))
	}
	mkdir(t, filepath.Join(dir, "folder"))
	write(t, filepath.Join(dir, "folder/entry"))
	write(t, filepath.Join(dir, "folder/info"))
	mkdir(t, filepath.Join(dir, "folder/sub"))
	write(t, filepath.Join(dir, "folder/sub/deep"))
	if err := os.Symlink("target", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	p := testkit.StartProbe(t, host, New(NewRules(rules(dir))), settings(cgroup))
	w := cgroup.StartWith(t, "file", attributes)
	return p, w
}

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

// setAttribute falls back on a kind that tmpfs has had for longer.
func setAttribute(a ...string) error {
	if unix.Setxattr(a[0], "user.x", []byte("y"), 0) == nil {
		return nil
	}
	return unix.Setxattr(a[0], "trusted.x", []byte("y"), 0)
}

// operations are what the worker can do to a path; each makes the real calls.
var operations = map[string]func(args ...string) error{
	"open":            func(a ...string) error { return openClose(a[0], unix.O_RDONLY) },
	"open-write":      func(a ...string) error { return openClose(a[0], unix.O_WRONLY) },
	"open-rdwr":       func(a ...string) error { return openClose(a[0], unix.O_RDWR) },
	"open-append":     func(a ...string) error { return openClose(a[0], unix.O_WRONLY|unix.O_APPEND) },
	"open-trunc":      func(a ...string) error { return openClose(a[0], unix.O_RDONLY|unix.O_TRUNC) },
	"open-path":       func(a ...string) error { return openClose(a[0], unix.O_PATH) },
	"open-creat":      func(a ...string) error { return openClose(a[0], unix.O_RDONLY|unix.O_CREAT) },
	"open-direct":     func(a ...string) error { return openClose(a[0], unix.O_RDONLY|unix.O_NOFOLLOW) },
	"legacy-open":     legacyOpen,
	"creat":           legacyCreat,
	"openat2":         openat2,
	"handle":          openHandle,
	"dirfd":           dirfd,
	"must-fail":       func(a ...string) error { return mustFail(openClose(a[0], unix.O_RDONLY)) },
	"must-deny":       mustDeny,
	"read-file":       func(a ...string) error { _, err := os.ReadFile(a[0]); return err },
	"rename":          func(a ...string) error { return os.Rename(a[0], a[1]) },
	"rename-fails":    func(a ...string) error { return mustFail(os.Rename(a[0], a[1])) },
	"exchange":        func(a ...string) error { return unix.Renameat2(-1, a[0], -1, a[1], unix.RENAME_EXCHANGE) },
	"write-file":      func(a ...string) error { return os.WriteFile(a[0], []byte("y"), 0o644) },
	"unlink":          func(a ...string) error { return unix.Unlink(a[0]) },
	"link":            func(a ...string) error { return os.Link(a[0], a[1]) },
	"symlink":         func(a ...string) error { return os.Symlink(a[0], a[1]) },
	"chmod":           func(a ...string) error { return unix.Chmod(a[0], 0o600) },
	"fchmod":          func(a ...string) error { return viaFD(a[0], func(fd int) error { return unix.Fchmod(fd, 0o640) }) },
	"chown":           func(a ...string) error { return unix.Chown(a[0], 1, 1) },
	"lchown":          func(a ...string) error { return unix.Lchown(a[0], 0, 0) },
	"fchown":          func(a ...string) error { return viaFD(a[0], func(fd int) error { return unix.Fchown(fd, 2, 2) }) },
	"truncate":        func(a ...string) error { return unix.Truncate(a[0], 0) },
	"grow":            func(a ...string) error { return unix.Truncate(a[0], 4096) },
	"utimes":          func(a ...string) error { return os.Chtimes(a[0], time.Unix(1, 0), time.Unix(2, 0)) },
	"xattr":           setAttribute,
	"append":          appendByte,
	"open-new":        openNew,
	"replace":         replace,
	"stat":            func(a ...string) error { _, err := os.Stat(a[0]); return err },
	"mkdir":           func(a ...string) error { return os.MkdirAll(a[0], 0o755) },
	"bind":            func(a ...string) error { return unix.Mount(a[0], a[1], "", unix.MS_BIND, "") },
	"unmount":         func(a ...string) error { return unix.Unmount(a[0], unix.MNT_DETACH) },
	"migrate":         migrate,
	"pivot":           pivot,
	"ring-open":       func(a ...string) error { return ringOpen(a[0], unix.O_RDONLY) },
	"ring-open-write": func(a ...string) error { return ringOpen(a[0], unix.O_WRONLY) },
	"ring-open-trunc": func(a ...string) error { return ringOpen(a[0], unix.O_RDONLY|unix.O_TRUNC) },
	"ring-rename":     func(a ...string) error { return ringRename(a[0], a[1]) },
	"ring-unlink":     func(a ...string) error { return ringUnlink(a[0]) },
}

// repeat carries out one operation n times.
func repeat(args ...string) (string, error) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return "", err
	}
	for range n {
		if err := operations[args[1]](args[2:]...); err != nil {
			return "", fmt.Errorf("%s: %w", args[1], err)
		}
	}
	return "", nil
}

// threads carries out one operation n times in each of 8 threads.
func threads(args ...string) (string, error) {
	var group sync.WaitGroup
	errs := make(chan error, 8)
	for range 8 {
		group.Go(func() {
			runtime.LockOSThread()
			_, err := repeat(args...)
			errs <- err
		})
	}
	group.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return "", err
		}
	}
	return "", nil
}

func openClose(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func mustFail(err error) error {
	if err == nil {
		return fmt.Errorf("succeeded")
	}
	return nil
}

func mustDeny(args ...string) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Setfsuid(65534); err != nil {
		return err
	}
	err := openClose(args[0], unix.O_RDONLY)
	if back := unix.Setfsuid(0); back != nil {
		return back
	}
	return mustFail(err)
}

func viaFD(path string, f func(fd int) error) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd)
}

func openat2(args ...string) error {
	fd, err := unix.Openat2(unix.AT_FDCWD, args[0], &unix.OpenHow{Flags: unix.O_RDONLY})
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func openHandle(args ...string) error {
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, args[0], 0)
	if err != nil {
		return err
	}
	real, err := unix.Open(filepath.Dir(args[0]), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(real)
	fd, err := unix.OpenByHandleAt(real, handle, unix.O_RDONLY)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func dirfd(args ...string) error {
	dir, err := unix.Open(filepath.Dir(args[0]), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, filepath.Base(args[0]), unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func appendByte(args ...string) error {
	f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for range 10 {
		if _, err := f.WriteString("z"); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// migrate opens on one CPU what it was about to open on another.
func migrate(args ...string) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for cpu := range runtime.NumCPU() {
		var set unix.CPUSet
		set.Set(cpu)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return err
		}
		if err := openClose(args[0], unix.O_RDONLY); err != nil {
			return err
		}
	}
	return nil
}

func TestOpens(t *testing.T) {
	dir := t.TempDir()
	p, w := setup(t, dir)
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := os.Link(in("secret"), in("hard")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("secret", in("soft")); err != nil {
		t.Fatal(err)
	}
	bound := in("bound")
	write(t, bound)
	if err := unix.Mount(in("secret"), bound, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(bound, unix.MNT_DETACH) })
	w.Do("repeat", "1", "chmod", in("plain")) // the worker is warm

	one := func(index int) map[int]int64 { return map[int]int64{index: rounds} }
	for _, c := range []struct {
		name, operation, path string
		want                  map[int]int64
	}{
		{"open for reading", "open", in("secret"), one(criticalRead)},
		{"open for writing", "open-write", in("secret"), one(criticalWrite)},
		{"open for both", "open-rdwr", in("secret"), one(criticalWrite)},
		{"open to append", "open-append", in("secret"), one(criticalWrite)},
		{"read-only and truncate", "open-trunc", in("secret"), one(criticalWrite)},
		{"O_PATH", "open-path", in("secret"), nil},
		{"O_CREAT of what exists", "open-creat", in("secret"), one(criticalRead)},
		{"open(2)", "legacy-open", in("secret"), one(criticalRead)},
		{"creat(2)", "creat", in("secret"), one(criticalWrite)},
		{"openat2(2)", "openat2", in("secret"), one(criticalRead)},
		{"open_by_handle_at(2)", "handle", in("secret"), one(criticalRead)},
		{"relative to a descriptor", "dirfd", in("secret"), one(criticalRead)},
		{"hard link", "open", in("hard"), one(criticalRead)},
		{"symbolic link", "open", in("soft"), one(criticalRead)},
		{"bind mount", "open", bound, one(criticalRead)},
		{"through /proc/self/root", "open", "/proc/self/root" + in("secret"), one(criticalRead)},
		{"double slashes", "open", "//" + filepath.Dir(in("secret")) + "//secret", one(criticalRead)},
		{"dot dot", "open", in("folder/../secret"), one(criticalRead)},
		{"longer name", "open", in("secretfoo"), nil},
		{"unwatched", "open", in("plain"), nil},
		{"missing", "must-fail", in("absent"), nil},
		{"denied", "must-deny", in("folder/private"), nil},
		{"reads not watched", "open", in("writes"), nil},
		{"writes watched", "open-write", in("writes"), one(criticalWrite)},
		{"directory entry", "open", in("folder/entry"), one(warningRead)},
		{"entry with a rule of its own", "open", in("folder/info"), one(infoRead)},
		{"two levels below", "open", in("folder/sub/deep"), nil},
		{"the directory itself", "open", in("folder"), nil},
		{"glob", "open", in("key-1.pem"), one(infoRead)},
		{"rule on a link", "open", in("link"), one(infoRead)},
		{"what the link names", "open", in("target"), one(infoRead)},
		{"stat", "stat", in("secret"), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.operation == "must-deny" {
				write(t, c.path)
				if err := os.Chmod(c.path, 0); err != nil {
					t.Fatal(err)
				}
			}
			watch := testkit.NewWatch(t, p, "file_access_total")
			w.Do("repeat", strconv.Itoa(rounds), c.operation, c.path)
			watch.Expect(t, map[string]map[int]int64{"file_access_total": c.want})
		})
	}
	t.Run("migrating between CPUs", func(t *testing.T) {
		watch := testkit.NewWatch(t, p, "file_access_total")
		w.Do("repeat", "100", "migrate", in("secret"))
		watch.Expect(t, map[string]map[int]int64{"file_access_total": {criticalRead: int64(100 * runtime.NumCPU())}})
	})
	t.Run("eight threads", func(t *testing.T) {
		watch := testkit.NewWatch(t, p, "file_access_total")
		w.Do("threads", strconv.Itoa(10*rounds), "open", in("secret"))
		watch.Expect(t, map[string]map[int]int64{"file_access_total": {criticalRead: 80 * rounds}})
	})
}

type step struct {
	operation string
	args      []string
}

func TestChanges(t *testing.T) {
	dir := t.TempDir()
	p, w := setup(t, dir)
	in := func(name string) string { return filepath.Join(dir, name) }
	do := func(operation string, names ...string) step {
		s := step{operation: operation}
		for _, name := range names {
			s.args = append(s.args, in(name))
		}
		return s
	}
	for _, c := range []struct {
		name  string
		setup []step // by the test itself: not counted
		steps []step // once each round
		want  map[int]int64
	}{
		{"write and rename over, as editors do", nil,
			[]step{do("write-file", "tmp"), do("rename", "tmp", "secret")}, map[int]int64{criticalWrite: rounds}},
		{"rename away and back", nil,
			[]step{do("rename", "secret", "away"), do("rename", "away", "secret")}, map[int]int64{criticalWrite: 2 * rounds}},
		{"rename to a name that is not there yet, and remove", nil,
			[]step{do("write-file", "tmp"), do("rename", "tmp", "later"), do("unlink", "later")}, map[int]int64{criticalWrite: 2 * rounds}},
		{"rename between two watched names", nil,
			[]step{do("rename", "secret", "later"), do("rename", "later", "secret")}, map[int]int64{criticalWrite: 4 * rounds}},
		{"exchange with an unwatched file", nil,
			[]step{do("exchange", "secret", "partner")}, map[int]int64{criticalWrite: rounds}},
		{"failed rename", nil, []step{do("rename-fails", "secret", "absent/x")}, nil},
		{"rename of what is not watched", nil,
			[]step{do("rename", "plain", "plain2"), do("rename", "plain2", "plain")}, nil},
		{"chmod", nil, []step{do("chmod", "secret")}, map[int]int64{criticalWrite: rounds}},
		{"chmod of what is not watched", nil, []step{do("chmod", "plain")}, nil},
		{"fchmod", nil, []step{do("fchmod", "writes")}, map[int]int64{criticalWrite: rounds}},
		{"chown", nil, []step{do("chown", "secret")}, map[int]int64{criticalWrite: rounds}},
		{"lchown", nil, []step{do("lchown", "secret")}, map[int]int64{criticalWrite: rounds}},
		{"fchown", nil, []step{do("fchown", "writes")}, map[int]int64{criticalWrite: rounds}},
		{"truncate and grow", nil, []step{do("grow", "secret"), do("truncate", "secret")}, map[int]int64{criticalWrite: 2 * rounds}},
		{"utimes", nil, []step{do("utimes", "secret")}, nil},
		{"xattr", nil, []step{do("xattr", "secret")}, nil},
		{"link to it and remove the link", nil, []step{do("link", "secret", "another"), do("unlink", "another")}, nil},
		{"directory entry made, renamed within, removed", nil,
			[]step{do("write-file", "folder/a"), do("rename", "folder/a", "folder/b"), do("unlink", "folder/b")},
			map[int]int64{warningWrite: 4 * rounds}},
		{"hidden by chmod through a link", nil, []step{do("chmod", "link")}, map[int]int64{warningWrite: rounds}},
		{"symbolic link put in its place", nil,
			[]step{{"symlink", []string{"target", in("tmplink")}}, do("rename", "tmplink", "later"), do("unlink", "later")},
			map[int]int64{criticalWrite: 2 * rounds}},
	} {
		t.Run(c.name, func(t *testing.T) {
			watch := testkit.NewWatch(t, p, "file_access_total")
			for range rounds {
				for _, s := range c.steps {
					w.Do("repeat", append([]string{"1", s.operation}, s.args...)...)
				}
			}
			watch.Expect(t, map[string]map[int]int64{"file_access_total": c.want})
		})
	}
	t.Run("what was exchanged is forgotten", func(t *testing.T) {
		touch := func() int64 {
			before := testkit.Sum(t, p, "file_access_total")[criticalWrite]
			w.Do("repeat", "1", "chmod", in("partner"))
			return testkit.Sum(t, p, "file_access_total")[criticalWrite] - before
		}
		for deadline := time.Now().Add(10 * time.Second); touch() != 0; time.Sleep(100 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("still watched")
			}
		}
		watch := testkit.NewWatch(t, p, "file_access_total")
		w.Do("repeat", strconv.Itoa(rounds), "chmod", in("partner"))
		watch.Expect(t, map[string]map[int]int64{"file_access_total": nil})
	})
	t.Run("one open, many writes", func(t *testing.T) {
		watch := testkit.NewWatch(t, p, "file_access_total")
		w.Do("repeat", "20", "append", in("secret"))
		watch.Expect(t, map[string]map[int]int64{"file_access_total": {criticalWrite: 20}})
	})
	if entries := mapLength(t, p, "pending_changes"); entries != 0 {
		t.Errorf("%d changes are still pending", entries)
	}
}

func mapLength(t *testing.T, p *probe.Probe, name string) int {
	t.Helper()
	var key, value []byte
	n := 0
	entries := p.Map(name).Iterate()
	for entries.Next(&key, &value) {
		n++
	}
	if err := entries.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}

// A file replaced by rename is watched without a window by its name, and
// within a second by every other name.
func TestReplaced(t *testing.T) {
	dir := t.TempDir()
	p, w := setup(t, dir)
	secret, hard := filepath.Join(dir, "secret"), filepath.Join(dir, "hard")
	for range 50 {
		w.Do("repeat", "1", "write-file", filepath.Join(dir, "tmp"))
		watch := testkit.NewWatch(t, p, "file_access_total")
		w.Do("repeat", "1", "rename", filepath.Join(dir, "tmp"), secret)
		w.Do("repeat", "10", "open", secret)
		watch.Expect(t, map[string]map[int]int64{"file_access_total": {criticalWrite: 1, criticalRead: 10}})
	}
	w.Do("repeat", "1", "link", secret, hard)
	time.Sleep(2 * refreshInterval)
	watch := testkit.NewWatch(t, p, "file_access_total")
	w.Do("repeat", strconv.Itoa(rounds), "open", hard)
	watch.Expect(t, map[string]map[int]int64{"file_access_total": {criticalRead: rounds}})
}

// A rule on a file in folders that do not exist yet holds from the first open.
func TestNotYetThere(t *testing.T) {
	dir := t.TempDir()
	p, w := setup(t, dir)
	there := filepath.Join(dir, "not/yet/there")
	watch := testkit.NewWatch(t, p, "file_access_total")
	w.Do("repeat", "1", "mkdir", filepath.Dir(there))
	w.Do("repeat", "1", "write-file", there)
	w.Do("repeat", strconv.Itoa(rounds), "open", there)
	watch.Expect(t, map[string]map[int]int64{"file_access_total": {warningWrite: 1, infoRead: rounds}})
}

func TestTablesAgreeWithPrograms(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		glob, name string
		want       bool
	}{
		{"a*", "a", true}, {"a*", "abc", true}, {"a*c", "ac", true}, {"a*c", "abbc", true}, {"a*c", "abb", false},
		{"a*a", "a", false}, {"?", "a", true}, {"?", "", false}, {"?", "ab", false}, {"a?c", "abc", true},
		{"*", "", true}, {"*.pem", "x.pem", true}, {"*.pem", ".pem", true}, {"*.pem", "pem", false}, {"x", "x", true}, {"x", "xy", false},
	} {
		if got := matchGlob(c.glob, c.name); got != c.want {
			t.Errorf("matchGlob(%q, %q) = %v", c.glob, c.name, got)
		}
	}
	if hashPath("/") != hashBasis || hashPath("/etc") == hashPath("/etc/etc") || hashPath("/a/b") == hashPath("/b/a") {
		t.Error("paths do not tell themselves apart")
	}
}
