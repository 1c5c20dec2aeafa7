// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"context"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is an open directory of /proc or /sys, for a pass over thousands of
// entries: one call of the kernel for each. Use it from one goroutine.
type Dir struct {
	f *os.File
	// links is for the text of links, list for directory entries. They are
	// shared with the directories opened from this one.
	links, list *[]byte
}

const (
	linkBuffer = unix.PathMax
	listBuffer = 32 << 10
)

// OpenDir opens a directory of /proc or /sys.
func (t *Tree) OpenDir(ctx context.Context, name string) (*Dir, error) {
	f, err := lookup(ctx, t, "open", name, true, func(fd int) (*os.File, error) { return openDir(fd) })
	if err != nil {
		return nil, err
	}
	links, list := make([]byte, linkBuffer), make([]byte, listBuffer)
	return &Dir{f: f, links: &links, list: &list}, nil
}

// OfProcess opens a directory of a process, such as fd, when d is the top of
// /proc. Only the kernel makes names there, so no link can be on the way.
func (d *Dir) OfProcess(pid int, name string) (*Dir, error) {
	path := strconv.Itoa(pid) + "/" + name
	fd, err := openat(int(d.f.Fd()), path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return nil, pathError("open", "/proc/"+path, err)
	}
	return &Dir{f: os.NewFile(uintptr(fd), path), links: d.links, list: d.list}, nil
}

// LinkOfProcess returns the text of a link of a process, such as exe or fd/7,
// when d is the top of /proc.
func (d *Dir) LinkOfProcess(pid int, name string) (string, error) {
	return d.readlink(strconv.Itoa(pid) + "/" + name)
}

// Names lists the directory in the kernel's order, at most MaxEntries. Call it
// once.
func (d *Dir) Names() ([]string, error) {
	var names []string
	for {
		n, err := unix.ReadDirent(int(d.f.Fd()), *d.list)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, pathError("readdir", d.f.Name(), err)
		}
		if n == 0 {
			return names, nil
		}
		_, _, names = unix.ParseDirent((*d.list)[:n], -1, names)
		if len(names) > MaxEntries {
			return nil, pathError("readdir", d.f.Name(), ErrTooLarge)
		}
	}
}

// Readlink returns the text of the link name, which has no slash in it.
func (d *Dir) Readlink(name string) (string, error) {
	if strings.Contains(name, "/") {
		return "", pathError("readlink", name, unix.EINVAL)
	}
	return d.readlink(name)
}

func (d *Dir) readlink(name string) (string, error) {
	n, err := unix.Readlinkat(int(d.f.Fd()), name, *d.links)
	if err != nil {
		return "", pathError("readlink", name, err)
	}
	return string((*d.links)[:n]), nil
}

// Close releases the directory.
func (d *Dir) Close() error { return d.f.Close() }
