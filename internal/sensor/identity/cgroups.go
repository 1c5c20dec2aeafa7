// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"security-exporter/internal/hostfs"
)

// cgroups is a mounted hierarchy, of either version. The id of a cgroup is the inode number
// of its directory.
type cgroups struct {
	tree *hostfs.Tree // nil if there is none
	root string       // where it is mounted
	// mount is the root of the hierarchy, for opening by id; nil if the
	// kernel or a seccomp filter refuses that.
	mount *os.File
	top   string // what the kernel calls it
}

// kernfsHandle is FILEID_KERNFS (include/linux/exportfs.h): a file handle of
// kernfs is the 64-bit id of the node. Since 5.5; it needs
// CAP_DAC_READ_SEARCH. It works without a process to ask, as long as the
// cgroup is there.
const kernfsHandle = 0xfe

func openCgroups(root string) cgroups {
	if root == "" {
		return cgroups{}
	}
	c := cgroups{root: root, tree: hostfs.New(hostfs.Paths{Sysfs: root}).Sysfs}
	mount, err := os.Open(root)
	if err != nil {
		return c
	}
	c.mount = mount
	c.top, err = nameOf(int(mount.Fd()))
	if err == nil {
		var fd int
		if fd, err = c.open(1); err == nil { // the root
			_ = unix.Close(fd)
		}
	}
	if err != nil {
		_ = c.close()
		c.mount = nil
	}
	return c
}

func (c *cgroups) close() error {
	if c.mount == nil {
		return nil
	}
	return c.mount.Close()
}

func (c *cgroups) open(id uint64) (int, error) {
	handle := unix.NewFileHandle(kernfsHandle, binary.NativeEndian.AppendUint64(nil, id))
	return unix.OpenByHandleAt(int(c.mount.Fd()), handle, unix.O_PATH|unix.O_CLOEXEC)
}

// path finds the path of a cgroup from the root of the hierarchy.
func (c *cgroups) path(id uint64) (string, bool) {
	if c.mount == nil {
		return "", false
	}
	fd, err := c.open(id)
	if err != nil {
		return "", false
	}
	defer unix.Close(fd)
	name, err := nameOf(fd)
	if err != nil {
		return "", false
	}
	name, ok := strings.CutPrefix(name, c.top)
	if name == "" {
		name = "/"
	}
	// A cgroup removed since has " (deleted)" behind its name, which is
	// still its name.
	return strings.TrimSuffix(name, " (deleted)"), ok && strings.HasPrefix(name, "/")
}

func nameOf(fd int) (string, error) {
	return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
}

// is says whether the cgroup at a path has this id.
func (c *cgroups) is(ctx context.Context, path string, id uint64) bool {
	if c.tree == nil {
		return false
	}
	info, err := c.tree.Stat(ctx, path)
	return err == nil && info.Ino == id
}

// exists says whether a cgroup is still there; yes if that cannot be told.
func (c *cgroups) exists(ctx context.Context, id uint64, path string) bool {
	if c.mount != nil {
		fd, err := c.open(id)
		if err == nil {
			_ = unix.Close(fd)
		}
		return !errors.Is(err, unix.ESTALE)
	}
	if c.tree == nil || path == "" {
		return false // not found when it was looked for
	}
	info, err := c.tree.Stat(ctx, path)
	if err != nil {
		return !errors.Is(err, hostfs.ErrNotExist)
	}
	return info.Ino == id
}

// walk calls f for each cgroup, those above others first, at most limit.
func (c *cgroups) walk(ctx context.Context, limit int, f func(id uint64, path string)) error {
	if c.tree == nil {
		return nil
	}
	var errs []error
	queue := []string{"/"}
	for at := 0; at < len(queue) && ctx.Err() == nil; at++ {
		path := queue[at]
		info, err := c.tree.Stat(ctx, path)
		if err == nil {
			f(info.Ino, path)
			err = c.below(ctx, path, limit, &queue)
		}
		if err != nil && !errors.Is(err, hostfs.ErrNotExist) {
			errs = append(errs, err)
		}
		if len(errs) > 10 {
			break
		}
	}
	return errors.Join(append(errs, ctx.Err())...)
}

func (c *cgroups) below(ctx context.Context, path string, limit int, queue *[]string) error {
	entries, err := c.tree.ReadDir(ctx, path)
	for _, e := range entries {
		if e.Type == fs.ModeDir && len(*queue) < limit {
			*queue = append(*queue, strings.TrimSuffix(path, "/")+"/"+e.Name)
		}
	}
	return err
}

// hasLegacy says whether /proc/PID/cgroup shows hierarchies of version 1.
func hasLegacy(text string) bool {
	for line := range strings.Lines(text) {
		if hierarchy, _, ok := strings.Cut(line, ":"); ok && hierarchy != "0" {
			return true
		}
	}
	return false
}
