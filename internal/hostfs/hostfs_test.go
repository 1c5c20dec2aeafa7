// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// both runs a test with openat2 and with the walk for older kernels.
func both(t *testing.T, test func(t *testing.T, dir string, tree *Tree)) {
	t.Helper()
	for name, res := range map[string]resolver{"openat2": resolveOpenat2, "walk": resolveWalk} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			test(t, dir, newRoot(Paths{Rootfs: dir}, res).Rootfs)
		})
	}
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	full := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, dir, name string) {
	t.Helper()
	if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func TestReadFile(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, dir string, tree *Tree) {
		write(t, dir, "etc/plain", "text\n")
		write(t, dir, "etc/empty", "")
		write(t, dir, "etc/binary", "a\x00\xff\xfe\n")
		write(t, dir, "etc/passwd", "inside\n")
		write(t, dir, "etc/full", strings.Repeat("x", DefaultLimit))
		write(t, dir, "etc/over", strings.Repeat("x", DefaultLimit+1))
		link(t, "plain", dir, "etc/relative")
		link(t, "/etc/passwd", dir, "etc/absolute")
		link(t, "../../../../../../etc/passwd", dir, "etc/climbing")
		link(t, "/etc", dir, "config")
		link(t, "loop2", dir, "etc/loop1")
		link(t, "loop1", dir, "etc/loop2")
		link(t, "/dev/zero", dir, "etc/zero")
		link(t, "gone", dir, "etc/dangling")
		if err := os.Truncate(filepath.Join(dir, "etc/plain"), 5); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mkfifo(filepath.Join(dir, "etc/fifo"), 0o644); err != nil {
			t.Fatal(err)
		}
		write(t, dir, "etc/sparse", "")
		if err := os.Truncate(filepath.Join(dir, "etc/sparse"), 1<<30); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name, want string
			err        error
		}{
			{"/etc/plain", "text\n", nil},
			{"etc/plain", "text\n", nil},
			{"/etc/../etc/./plain", "text\n", nil},
			{"/etc/empty", "", nil},
			{"/etc/binary", "a\x00\xff\xfe\n", nil},
			{"/etc/relative", "text\n", nil},
			{"/etc/absolute", "inside\n", nil},
			{"/etc/climbing", "inside\n", nil},
			{"/../../etc/passwd", "inside\n", nil},
			{"/config/plain", "text\n", nil},
			{"/etc/full", strings.Repeat("x", DefaultLimit), nil},
			{"/etc/over", "", ErrTooLarge},
			{"/etc/sparse", "", ErrTooLarge},
			{"/etc/loop1", "", unix.ELOOP},
			{"/etc/zero", "", ErrNotExist},
			{"/etc/dangling", "", ErrNotExist},
			{"/etc/missing", "", ErrNotExist},
			{"/etc/fifo", "", ErrNotRegular},
			{"/etc", "", ErrNotRegular},
			{"/", "", ErrNotRegular},
			{"/etc/plain/below", "", unix.ENOTDIR},
			{"/etc/nul\x00", "", unix.EINVAL},
		} {
			got, err := tree.ReadFile(t.Context(), c.name)
			if !errors.Is(err, c.err) {
				t.Errorf("%q: error %v, want %v", c.name, err, c.err)
			}
			if err != nil && !strings.Contains(err.Error(), c.name) {
				t.Errorf("%q: error does not name it: %v", c.name, err)
			}
			if string(got) != c.want {
				t.Errorf("%q: %d bytes, want %d", c.name, len(got), len(c.want))
			}
		}
	})
}

// A device has side effects when it is opened, and /dev/zero never ends.
func TestReadDevice(t *testing.T) {
	t.Parallel()
	for name, res := range map[string]resolver{"openat2": resolveOpenat2, "walk": resolveWalk} {
		tree := newRoot(Paths{}, res).Rootfs
		if _, err := tree.ReadFile(t.Context(), "/dev/zero"); !errors.Is(err, ErrNotRegular) {
			t.Errorf("%s: %v, want ErrNotRegular", name, err)
		}
	}
}

func TestReadPseudo(t *testing.T) {
	t.Parallel()
	root := New(Paths{})
	if v, err := root.Procfs.ReadValue(t.Context(), "sys/kernel/ostype"); v != "Linux" || err != nil {
		t.Errorf("ostype %q, %v", v, err)
	}
	if b, err := root.Procfs.ReadFile(t.Context(), "self/status"); len(b) == 0 || err != nil {
		t.Errorf("self/status: %d bytes, %v", len(b), err)
	}
	if _, err := root.Procfs.ReadLimit(t.Context(), "self/status", 10); !errors.Is(err, ErrTooLarge) {
		t.Errorf("capped self/status: %v, want ErrTooLarge", err)
	}
	if _, err := root.Procfs.ReadLimit(t.Context(), "sys/kernel/ostype", len("Linux\n")); err != nil {
		t.Errorf("a file just as large as the limit: %v", err)
	}
	if _, err := root.Procfs.ReadLimit(t.Context(), "sys/kernel/ostype", len("Linux")); !errors.Is(err, ErrTooLarge) {
		t.Errorf("one byte above the limit: %v", err)
	}
	if _, err := root.Procfs.ReadFile(t.Context(), "self/root/etc/passwd"); err == nil {
		t.Error("a magic link was followed")
	}
}

func TestPermission(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "secret", "x")
	if err := os.Chmod(filepath.Join(dir, "secret"), 0); err != nil {
		t.Fatal(err)
	}
	fd, err := openat(unix.AT_FDCWD, filepath.Join(dir, "secret"), unix.O_PATH)
	if err != nil {
		t.Fatal(err)
	}
	defer closeFD(fd)
	asNobody(t, func() {
		if _, _, err := reopenRegular(fd); !errors.Is(err, ErrPermission) {
			t.Errorf("error %v, want ErrPermission", err)
		}
	})
}

// asNobody runs f on a thread that has lost root, which is then thrown away.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		lockForever()
		if os.Geteuid() == 0 {
			if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
				t.Errorf("setresuid: %v", errno)
				return
			}
		}
		f()
	}()
	<-done
}

func TestStat(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, dir string, tree *Tree) {
		write(t, dir, "file", "12345")
		link(t, "file", dir, "link")
		if err := os.Chmod(filepath.Join(dir, "file"), 0o640|fs.ModeSetuid); err != nil {
			t.Fatal(err)
		}
		got, err := tree.Stat(t.Context(), "/link")
		if err != nil || got.Perm != 0o4640 || got.Size != 5 || !got.Mode.IsRegular() || got.Mode&fs.ModeSetuid == 0 {
			t.Errorf("stat: %+v, %v", got, err)
		}
		got, err = tree.Lstat(t.Context(), "/link")
		if err != nil || got.Mode.Type() != fs.ModeSymlink {
			t.Errorf("lstat: %+v, %v", got, err)
		}
		if s, err := tree.Readlink(t.Context(), "/link"); s != "file" || err != nil {
			t.Errorf("readlink: %q, %v", s, err)
		}
		if _, err := tree.Readlink(t.Context(), "/file"); err == nil {
			t.Error("readlink of a file succeeded")
		}
	})
}

func TestGlob(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, dir string, tree *Tree) {
		for _, n := range []string{"d/b.conf", "d/a.conf", "d/.hidden.conf", "d/a.conf.bak"} {
			write(t, dir, n, "")
		}
		for _, c := range []struct {
			pattern string
			want    []string
		}{
			{"/d/*.conf", []string{"/d/a.conf", "/d/b.conf"}},
			{"/d/*", []string{"/d/a.conf", "/d/a.conf.bak", "/d/b.conf"}},
			{"/missing/*", nil},
		} {
			got, err := tree.Glob(t.Context(), c.pattern)
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("%s: %q, %v, want %q", c.pattern, got, err, c.want)
			}
		}
		if _, err := tree.Glob(t.Context(), "/d/a.conf/*"); !errors.Is(err, unix.ENOTDIR) {
			t.Errorf("glob below a file: %v", err)
		}
		if _, err := tree.Glob(t.Context(), "/d/["); err == nil {
			t.Error("a broken pattern was accepted")
		}
	})
}

func TestVanishingFile(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, dir string, tree *Tree) {
		stop := make(chan struct{})
		done := make(chan struct{})
		name := filepath.Join(dir, "f")
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
					_ = os.WriteFile(name, []byte("whole"), 0o644)
					_ = os.Remove(name)
					time.Sleep(time.Millisecond / 10)
				}
			}
		}()
		for range 300 {
			if _, err := tree.ReadFile(t.Context(), "/f"); err != nil && !errors.Is(err, ErrNotExist) {
				t.Errorf("%v", err)
			}
		}
		close(stop)
		<-done
	})
}

func TestOpenAndHandle(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, dir string, tree *Tree) {
		write(t, dir, "db", "0123456789")
		f, err := tree.Open(t.Context(), "/db")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		buf := make([]byte, 3)
		if _, err := f.ReadAt(buf, 4); string(buf) != "456" || err != nil {
			t.Errorf("%q, %v", buf, err)
		}
		err = tree.Handle(t.Context(), "/db", func(p string) error {
			b, err := os.ReadFile(p)
			if string(b) != "0123456789" {
				t.Errorf("through the handle: %q", b)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// A call that hangs costs its caller the timeout, and no more than MaxCalls
// of them are ever under way.
func TestHungCalls(t *testing.T) {
	t.Parallel()
	c := newCalls()
	c.timeout = 20 * time.Millisecond
	release := make(chan struct{})
	dropped := make(chan int, MaxCalls)
	for range MaxCalls {
		_, err := do(t.Context(), c, "read", "/mnt/dead", func() (int, error) {
			<-release
			return 7, nil
		}, func(v int) { dropped <- v })
		if !errors.Is(err, ErrHung) || !strings.Contains(err.Error(), "/mnt/dead") {
			t.Fatalf("hung call: %v", err)
		}
	}
	started := false
	_, err := do(t.Context(), c, "read", "/x", func() (int, error) { started = true; return 0, nil }, nil)
	if !errors.Is(err, ErrHung) || started {
		t.Errorf("call above the bound: started %v, %v", started, err)
	}
	close(release)
	for range MaxCalls {
		if v := <-dropped; v != 7 {
			t.Errorf("dropped %d", v)
		}
	}
	if v, err := do(t.Context(), c, "read", "/x", func() (int, error) { return 1, nil }, nil); v != 1 || err != nil {
		t.Errorf("after the release: %d, %v", v, err)
	}
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	root := New(Paths{})
	if _, err := root.Rootfs.ReadFile(ctx, "/etc/passwd"); !errors.Is(err, context.Canceled) {
		t.Errorf("rootfs: %v", err)
	}
	if _, err := root.Procfs.Readlink(ctx, "self"); !errors.Is(err, context.Canceled) {
		t.Errorf("procfs: %v", err)
	}
}

// A tree that is not mounted must not look like a host without the file.
func TestMissingTree(t *testing.T) {
	t.Parallel()
	root := New(Paths{Rootfs: filepath.Join(t.TempDir(), "unmounted")})
	_, err := root.Rootfs.ReadFile(t.Context(), "/etc/passwd")
	if err == nil || errors.Is(err, ErrNotExist) || !strings.Contains(err.Error(), "unmounted") {
		t.Errorf("error %v", err)
	}
}
