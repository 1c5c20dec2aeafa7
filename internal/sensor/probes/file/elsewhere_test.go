// SPDX-License-Identifier: Apache-2.0

package file

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"security-exporter/internal/testkit"
)

// ringOperation carries out one request on a ring and wants it to succeed.
func ringOperation(request testkit.Request) (int32, error) {
	ring, err := testkit.NewRing()
	if err != nil {
		return 0, err
	}
	result, err := ring.Do(request)
	if err == nil && result < 0 {
		err = syscall.Errno(-result)
	}
	return result, errors.Join(err, ring.Close())
}

func ringOpen(path string, flags uint32) error {
	name := append([]byte(path), 0)
	fd, err := ringOperation(testkit.Request{
		Opcode: testkit.RingOpenat, FD: unix.AT_FDCWD, Address: uint64(uintptr(unsafe.Pointer(&name[0]))), OpFlags: flags,
	})
	if err != nil {
		return err
	}
	return unix.Close(int(fd))
}

func ringRename(from, to string) error {
	a, b := append([]byte(from), 0), append([]byte(to), 0)
	at := int32(unix.AT_FDCWD)
	_, err := ringOperation(testkit.Request{
		Opcode: testkit.RingRenameat, FD: at, Address: uint64(uintptr(unsafe.Pointer(&a[0]))),
		Length: uint32(at), Offset: uint64(uintptr(unsafe.Pointer(&b[0]))),
	})
	return err
}

func ringUnlink(path string) error {
	name := append([]byte(path), 0)
	_, err := ringOperation(testkit.Request{
		Opcode: testkit.RingUnlinkat, FD: unix.AT_FDCWD, Address: uint64(uintptr(unsafe.Pointer(&name[0]))),
	})
	return err
}

func TestRing(t *testing.T) {
	dir := t.TempDir()
	p, w := setup(t, dir)
	if _, err := w.Try("repeat", "1", "ring-open", filepath.Join(dir, "plain")); err != nil {
		t.Skipf("io_uring is switched off: %v", err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, c := range []struct {
		name  string
		steps [][]string
		want  map[int]int64
	}{
		{"open", [][]string{{"ring-open", in("secret")}}, map[int]int64{criticalRead: rounds}},
		{"open for writing", [][]string{{"ring-open-write", in("secret")}}, map[int]int64{criticalWrite: rounds}},
		{"open and truncate", [][]string{{"ring-open-trunc", in("secret")}}, map[int]int64{criticalWrite: rounds}},
		{"open of what is not watched", [][]string{{"ring-open", in("plain")}}, nil},
		{"rename over", [][]string{{"write-file", in("tmp")}, {"ring-rename", in("tmp"), in("secret")}}, map[int]int64{criticalWrite: rounds}},
		{"unlink", [][]string{{"write-file", in("later")}, {"ring-unlink", in("later")}}, map[int]int64{criticalWrite: 2 * rounds}},
	} {
		t.Run(c.name, func(t *testing.T) {
			watch := testkit.NewWatch(t, p, "file_access_total")
			for range rounds {
				for _, s := range c.steps {
					w.Do("repeat", append([]string{"1"}, s...)...)
				}
			}
			watch.Expect(t, map[string]map[int]int64{"file_access_total": c.want})
		})
	}
	if entries := mapLength(t, p, "pending_changes"); entries != 0 {
		t.Errorf("%d changes are still pending", entries)
	}
}

// pivot makes a container of the worker: a file system of its own as the root
// of a mount namespace of its own, with the watched folder's path in it.
func pivot(args ...string) error {
	root, dir := args[0], args[1]
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount the new root: %w", err)
	}
	inside := filepath.Join(root, dir)
	if err := os.MkdirAll(filepath.Join(inside, "folder"), 0o755); err != nil {
		return err
	}
	for _, name := range []string{"secret", "plain", "folder/entry", "elsewhere"} {
		if err := os.WriteFile(filepath.Join(inside, name), []byte("x"), 0o644); err != nil {
			return err
		}
	}
	// as runtimes do with /etc/resolv.conf: a single file mounted in place
	mounted := filepath.Join(inside, "key-1.pem")
	if err := os.WriteFile(mounted, nil, 0o644); err != nil {
		return err
	}
	if err := unix.Mount(filepath.Join(inside, "elsewhere"), mounted, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	return unix.Chdir("/")
}

func TestContainer(t *testing.T) {
	dir := t.TempDir()
	p, w := setupWith(t, dir, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}, (*testkit.Cgroup).Only)
	root := filepath.Join(dir, "root")
	mkdir(t, root)
	w.Do("repeat", "1", "pivot", root, dir)
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, c := range []struct {
		name  string
		steps [][]string
		want  map[int]int64
	}{
		{"open", [][]string{{"open", in("secret")}}, map[int]int64{criticalRead: rounds}},
		{"open for writing", [][]string{{"open-write", in("secret")}}, map[int]int64{criticalWrite: rounds}},
		{"directory entry", [][]string{{"open", in("folder/entry")}}, map[int]int64{warningRead: rounds}},
		{"unwatched", [][]string{{"open", in("plain")}}, nil},
		{"a file mounted in place", [][]string{{"open", in("key-1.pem")}}, map[int]int64{infoRead: rounds}},
		{"by its other name", [][]string{{"open", in("elsewhere")}}, nil},
		{"write and rename over", [][]string{{"write-file", in("tmp")}, {"rename", in("tmp"), in("secret")}}, map[int]int64{criticalWrite: rounds}},
		{"chmod", [][]string{{"chmod", in("secret")}}, map[int]int64{criticalWrite: rounds}},
	} {
		t.Run(c.name, func(t *testing.T) {
			watch := testkit.NewWatch(t, p, "file_access_total")
			for range rounds {
				for _, s := range c.steps {
					w.Do("repeat", append([]string{strconv.Itoa(1)}, s...)...)
				}
			}
			watch.Expect(t, map[string]map[int]int64{"file_access_total": c.want})
		})
	}
}
