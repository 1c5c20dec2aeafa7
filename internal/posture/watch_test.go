// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
)

// watched is a Runner over a temporary root with one collector that reports
// each of its runs.
type watched struct {
	dir  string
	r    *Runner
	runs chan struct{}
}

func watch(t *testing.T, setup func(dir string), files ...string) *watched {
	t.Helper()
	w := &watched{dir: t.TempDir(), runs: make(chan struct{}, 100)}
	if setup != nil {
		setup(w.dir)
	}
	s := stub("watched", func(context.Context, *Input, *metric.Batch) error {
		w.runs <- struct{}{}
		return nil
	})
	s.Watch, s.Interval = files, time.Hour
	w.r = testRunner(t, Options{Root: hostfs.New(hostfs.Paths{Rootfs: w.dir})}, s)
	w.r.Start(t.Context())
	t.Cleanup(func() { _ = w.r.Close() })
	w.expectRun(t, "the start")
	return w
}

func (w *watched) expectRun(t *testing.T, after string) {
	t.Helper()
	select {
	case <-w.runs:
	case <-time.After(2 * time.Second):
		t.Errorf("no run within 2 s of %s", after)
	}
}

func (w *watched) expectQuiet(t *testing.T, after string) {
	t.Helper()
	select {
	case <-w.runs:
		t.Errorf("a run after %s", after)
	case <-time.After(2 * window):
	}
}

func (w *watched) count(t *testing.T, file string, want float64) {
	t.Helper()
	got := scrape(t, w.r)
	if v, ok := got["config_changes_total{"+file+"}"]; !ok || v != want {
		t.Errorf("changes of %s: %v (present %v), want %v", file, v, ok, want)
	}
}

func (w *watched) path(name string) string { return filepath.Join(w.dir, name) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, name, content string) {
	t.Helper()
	must(t, os.WriteFile(name, []byte(content), 0o644))
}

func TestWatchFile(t *testing.T) {
	t.Parallel()
	w := watch(t, func(dir string) {
		must(t, os.Mkdir(filepath.Join(dir, "etc"), 0o755))
		put(t, filepath.Join(dir, "etc/conf"), "1")
	}, "/etc/conf", "/etc/other")
	w.count(t, "/etc/conf", 0)
	w.count(t, "/etc/other", 0)

	put(t, w.path("etc/conf"), "2")
	w.expectRun(t, "a write")
	w.count(t, "/etc/conf", 1)

	put(t, w.path("etc/conf.new"), "3")
	w.expectQuiet(t, "a write to a neighbour")
	must(t, os.Rename(w.path("etc/conf.new"), w.path("etc/conf")))
	w.expectRun(t, "a replacement")
	w.count(t, "/etc/conf", 2)

	must(t, os.Chmod(w.path("etc/conf"), 0o600))
	w.expectRun(t, "chmod")
	w.count(t, "/etc/conf", 3)

	must(t, os.Remove(w.path("etc/conf")))
	w.expectRun(t, "removal")
	w.count(t, "/etc/conf", 4)

	put(t, w.path("etc/conf"), "5")
	w.expectRun(t, "creation")
	w.count(t, "/etc/conf", 5)
	w.count(t, "/etc/other", 0)
}

func TestWatchMissingDirectories(t *testing.T) {
	t.Parallel()
	w := watch(t, nil, "/etc/ssh/sshd_config")
	must(t, os.Mkdir(w.path("etc"), 0o755))
	w.expectQuiet(t, "making the first directory")
	must(t, os.Mkdir(w.path("etc/ssh"), 0o755))
	put(t, w.path("etc/ssh/sshd_config"), "1")
	w.expectRun(t, "creation in a new directory")

	must(t, os.Rename(w.path("etc/ssh"), w.path("etc/ssh.old")))
	w.expectRun(t, "moving the directory away")
	put(t, w.path("etc/ssh.old/sshd_config"), "2")
	w.expectQuiet(t, "a write to what was moved away")

	must(t, os.Mkdir(w.path("new"), 0o755))
	put(t, w.path("new/sshd_config"), "3")
	must(t, os.Rename(w.path("new"), w.path("etc/ssh")))
	w.expectRun(t, "moving a directory into place")
	put(t, w.path("etc/ssh/sshd_config"), "4")
	w.expectRun(t, "a write in the new directory")
	w.count(t, "/etc/ssh/sshd_config", 4)
}

// Files that count as one run the collector for each and count once for what
// both see.
func TestWatchCountedWith(t *testing.T) {
	t.Parallel()
	wants := "etc/systemd/system/multi-user.target.wants"
	w := watch(t, func(dir string) {
		for _, d := range []string{"etc/sudoers.d", "usr/etc/sudoers.d", wants} {
			must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
		}
	}, "/etc/sudoers.d/*", "/usr/etc/sudoers.d/*", "/etc/systemd/system/*", "/"+wants+"/*")
	put(t, w.path("usr/etc/sudoers.d/a"), "x")
	w.expectRun(t, "a change of the distribution's file")
	put(t, w.path("etc/sudoers.d/a"), "x")
	w.expectRun(t, "a change of the administrator's file")
	must(t, os.Symlink("/lib/systemd/system/a.service", w.path(wants+"/a.service")))
	w.expectRun(t, "a new link of a unit")
	w.expectQuiet(t, "the last change")
	w.count(t, "/etc/sudoers.d/*", 2)
	w.count(t, "/etc/systemd/system/*", 1)
	absent(t, scrape(t, w.r), "config_changes_total{/usr/etc/sudoers.d/*}", "config_changes_total{/"+wants+"/*}")
}

func TestWatchPattern(t *testing.T) {
	t.Parallel()
	w := watch(t, func(dir string) { must(t, os.MkdirAll(filepath.Join(dir, "etc/sysctl.d"), 0o755)) }, "/etc/sysctl.d/*.conf")
	put(t, w.path("etc/sysctl.d/README"), "x")
	put(t, w.path("etc/sysctl.d/.a.conf"), "x")
	w.expectQuiet(t, "files that do not match")
	put(t, w.path("etc/sysctl.d/a.conf"), "x")
	w.expectRun(t, "a new match")
	put(t, w.path("etc/sysctl.d/a.conf"), "y")
	w.expectRun(t, "a change of a match")
	w.count(t, "/etc/sysctl.d/*.conf", 2)
}

func TestWatchSymlink(t *testing.T) {
	t.Parallel()
	w := watch(t, func(dir string) {
		must(t, os.MkdirAll(filepath.Join(dir, "usr/lib"), 0o755))
		must(t, os.Mkdir(filepath.Join(dir, "etc"), 0o755))
		put(t, filepath.Join(dir, "usr/lib/os-release"), "1")
		put(t, filepath.Join(dir, "usr/lib/other"), "1")
		must(t, os.Symlink("/usr/lib/os-release", filepath.Join(dir, "etc/os-release")))
	}, "/etc/os-release")
	put(t, w.path("usr/lib/os-release"), "2")
	w.expectRun(t, "a write to the target")
	put(t, w.path("usr/lib/tmp"), "3")
	must(t, os.Rename(w.path("usr/lib/tmp"), w.path("usr/lib/os-release")))
	w.expectRun(t, "a replacement of the target")
	put(t, w.path("usr/lib/os-release"), "4")
	w.expectRun(t, "a write to the new target")
	must(t, os.Symlink("/usr/lib/other", w.path("etc/link")))
	must(t, os.Rename(w.path("etc/link"), w.path("etc/os-release")))
	w.expectRun(t, "another link")
	put(t, w.path("usr/lib/other"), "5")
	w.expectRun(t, "a write to the other target")
	w.count(t, "/etc/os-release", 5)
}

// A link in the middle of the way is exchanged, as package managers and
// orchestrators do it; what it led to stays as it is.
func TestWatchLinkOnTheWay(t *testing.T) {
	t.Parallel()
	w := watch(t, func(dir string) {
		for _, d := range []string{"etc", "etc/v1", "etc/v2"} {
			must(t, os.Mkdir(filepath.Join(dir, d), 0o755))
		}
		put(t, filepath.Join(dir, "etc/v1/conf"), "1")
		put(t, filepath.Join(dir, "etc/v2/conf"), "2")
		must(t, os.Symlink("v1", filepath.Join(dir, "etc/..data")))
		must(t, os.Symlink("..data/conf", filepath.Join(dir, "etc/conf")))
	}, "/etc/conf")
	must(t, os.Symlink("v2", w.path("etc/..new")))
	must(t, os.Rename(w.path("etc/..new"), w.path("etc/..data")))
	w.expectRun(t, "an exchanged link to the directory")
	put(t, w.path("etc/v2/conf"), "3")
	w.expectRun(t, "a write behind the new link")
	put(t, w.path("etc/v1/conf"), "3")
	w.expectQuiet(t, "a write behind the old link")
	w.count(t, "/etc/conf", 2)
}

// What inotify lost or never saw is found by comparing.
func TestWatchOverflow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, filepath.Join(dir, "a"), "1")
	put(t, filepath.Join(dir, "b"), "1")
	w := newWatcher(hostfs.New(hostfs.Paths{Rootfs: dir}), testRunner(t, Options{}).log, []string{"/a", "/b"}, nil)
	w.look(t.Context())
	must(t, os.Truncate(filepath.Join(dir, "a"), 0))
	w.look(t.Context())
	if len(w.pending) != 1 || w.pending["/a"].IsZero() {
		t.Errorf("pending %v, want /a", w.pending)
	}
}

func FuzzEvents(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 'a', 0, 0, 0})
	root := hostfs.New(hostfs.Paths{Rootfs: f.TempDir()})
	f.Fuzz(func(t *testing.T, b []byte) {
		w := newWatcher(root, nil, []string{"/a"}, nil)
		w.watches = map[int32]*interest{1: {final: []final{{"a", "/a"}}}}
		w.events(b)
		if len(w.pending) > 1 {
			t.Errorf("%v", w.pending)
		}
	})
}
