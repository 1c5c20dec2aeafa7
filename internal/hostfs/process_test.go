// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func lockForever() { runtime.LockOSThread() }

func TestProcess(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, dir string, tree *Tree) {
		root := newRoot(Paths{}, tree.resolve)
		p, err := root.Process(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := p.Readlink(t.Context(), "exe"); got != exe || err != nil {
			t.Errorf("exe %q, %v, want %q", got, err, exe)
		}
		if ticks, err := p.StartTime(t.Context()); ticks == 0 || err != nil {
			t.Errorf("start time %d, %v", ticks, err)
		}
		f, err := p.OpenExe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		magic := make([]byte, 4)
		if _, err := f.ReadAt(magic, 0); string(magic) != "\x7fELF" || err != nil {
			t.Errorf("magic %q, %v", magic, err)
		}
		var want unix.Stat_t
		if err := unix.Stat(exe, &want); err != nil {
			t.Fatal(err)
		}
		if st, err := p.StatExe(t.Context()); st.Ino != want.Ino || st.Dev != want.Dev || err != nil {
			t.Errorf("stat exe: %+v, %v", st, err)
		}
		r, err := p.Root(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if b, err := r.ReadFile(t.Context(), "/proc/sys/kernel/ostype"); string(b) != "Linux\n" || err != nil {
			t.Errorf("through root: %q, %v", b, err)
		}
	})
}

func TestProcessFds(t *testing.T) {
	t.Parallel()
	root := New(Paths{})
	p, err := root.Process(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	// More than one buffer of directory entries holds.
	dir := t.TempDir()
	want := make(map[string]string)
	for range 3000 {
		file, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		want[strconv.Itoa(int(file.Fd()))] = dir
	}
	fds, err := p.OpenDir(t.Context(), "fd")
	if err != nil {
		t.Fatal(err)
	}
	defer fds.Close()
	got := make(map[string]string)
	err = fds.Links(func(name, text []byte) bool {
		if _, twice := got[string(name)]; twice {
			t.Errorf("fd %s twice", name)
		}
		got[string(name)] = string(text)
		return true
	})
	maps.DeleteFunc(got, func(fd, _ string) bool { return want[fd] == "" })
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%d fds, %v, want %d", len(got), err, len(want))
	}
	calls := 0
	again, err := p.OpenDir(t.Context(), "fd")
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Links(func(_, _ []byte) bool { calls++; return false }); err != nil || calls != 1 {
		t.Errorf("%d calls after false, %v", calls, err)
	}
	pids, err := root.Pids(t.Context())
	if err != nil || !slices.Contains(pids, os.Getpid()) {
		t.Errorf("pids: %v", err)
	}
}

// The handle belongs to the process, so a reused pid is never read by mistake.
func TestProcessGone(t *testing.T) {
	t.Parallel()
	root := New(Paths{})
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := root.Process(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if _, err := p.ReadFile(t.Context(), "stat"); !errors.Is(err, ErrNotExist) {
		t.Errorf("stat of a dead process: %v", err)
	}
	if _, err := p.OpenExe(t.Context()); !errors.Is(err, ErrNotExist) {
		t.Errorf("exe of a dead process: %v", err)
	}
	if _, err := root.Process(cmd.Process.Pid); !errors.Is(err, ErrNotExist) {
		t.Errorf("a dead process: %v", err)
	}
}

// A container aims its own links at the host.
func TestProcessRootContains(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, dir string, tree *Tree) {
		write(t, dir, "box/etc/passwd", "of the container\n")
		write(t, dir, "etc/passwd", "of the host\n")
		if err := os.MkdirAll(filepath.Join(dir, "proc/7"), 0o755); err != nil {
			t.Fatal(err)
		}
		link(t, "/etc/passwd", dir, "box/package.json")
		link(t, "../../box", dir, "proc/7/root")
		root := newRoot(Paths{Procfs: filepath.Join(dir, "proc")}, tree.resolve)
		p, err := root.Process(7)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		r, err := p.Root(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for _, name := range []string{"/package.json", "/../etc/passwd", "/etc/passwd"} {
			if b, err := r.ReadFile(t.Context(), name); string(b) != "of the container\n" || err != nil {
				t.Errorf("%s: %q, %v", name, b, err)
			}
		}
	})
}

func FuzzParseStartTime(f *testing.F) {
	f.Add([]byte("1 (a) b) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12 0"))
	f.Add([]byte(""))
	f.Add([]byte("1 (x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if ticks, err := parseStartTime(b); err != nil && ticks != 0 && !errors.Is(err, strconv.ErrRange) {
			t.Errorf("%d with %v", ticks, err)
		}
	})
}

func TestParseStartTime(t *testing.T) {
	t.Parallel()
	got, err := parseStartTime([]byte("1 (a) b) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12 0"))
	if got != 12 || err != nil {
		t.Errorf("%d, %v", got, err)
	}
}

func TestOpenNS(t *testing.T) {
	t.Parallel()
	p, err := New(Paths{}).Process(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	f, err := p.OpenNS("net")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got, want unix.Stat_t
	if err := errors.Join(unix.Fstat(int(f.Fd()), &got), unix.Stat("/proc/self/ns/net", &want)); err != nil || got.Ino != want.Ino {
		t.Errorf("inode %d, want %d: %v", got.Ino, want.Ino, err)
	}
	if _, err := p.OpenNS("none"); !errors.Is(err, ErrNotExist) {
		t.Errorf("a namespace that does not exist: %v", err)
	}
}
