// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Dir is an open directory of /proc or /sys, for a pass over thousands of
// entries: one call of the kernel for each, and no memory. Use it from one
// goroutine.
type Dir struct {
	fd   int
	name string
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
	fd, err := lookup(ctx, t, "open", name, true, func(handle int) (int, error) {
		return openat(handle, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	})
	if err != nil {
		return nil, err
	}
	links, list := make([]byte, linkBuffer), make([]byte, listBuffer)
	return &Dir{fd: fd, name: name, links: &links, list: &list}, nil
}

// OfProcess opens a directory of a process, such as fd, when d is the top of
// /proc. Only the kernel makes names there, so no link can be on the way.
func (d *Dir) OfProcess(pid int, name string) (*Dir, error) {
	path := strconv.Itoa(pid) + "/" + name
	fd, err := openat(d.fd, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return nil, pathError("open", "/proc/"+path, err)
	}
	return &Dir{fd: fd, name: path, links: d.links, list: d.list}, nil
}

// LinkOfProcess returns the text of a link of a process, such as exe or fd/7,
// when d is the top of /proc.
func (d *Dir) LinkOfProcess(pid int, name string) (string, error) {
	path := strconv.Itoa(pid) + "/" + name
	n, err := unix.Readlinkat(d.fd, path, *d.links)
	if err != nil {
		return "", pathError("readlink", path, err)
	}
	return string((*d.links)[:n]), nil
}

// Links calls f with the name and the text of every link in the directory, in
// the kernel's order, until f returns false. One that vanishes meanwhile is
// left out. The bytes are valid only during the call. Call it once.
func (d *Dir) Links(f func(name, text []byte) bool) error {
	for count := 0; ; {
		n, err := unix.ReadDirent(d.fd, *d.list)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return pathError("readdir", d.name, err)
		}
		if n == 0 {
			return nil
		}
		for list := (*d.list)[:n]; len(list) > 0; count++ {
			if count > MaxEntries {
				return pathError("readdir", d.name, ErrTooLarge)
			}
			entry, name, err := nextEntry(list)
			if err != nil {
				return pathError("readdir", d.name, err)
			}
			list = list[len(entry):]
			if entryName := string(name[:len(name)-1]); entryName == "." || entryName == ".." {
				continue
			}
			text, err := d.link(name)
			if errors.Is(err, ErrPermission) {
				return pathError("readlink", d.name, err)
			}
			if err == nil && !f(name[:len(name)-1], text) {
				return nil
			}
		}
	}
}

// Where struct linux_dirent64 has its fields (getdents64(2)).
const (
	direntLength = 16
	direntName   = 19
)

// nextEntry returns the first entry of a list and its name with the zero byte
// behind it.
func nextEntry(list []byte) (entry, name []byte, err error) {
	if len(list) <= direntName {
		return nil, nil, fmt.Errorf("%w: a directory entry is cut off", unix.EIO)
	}
	size := int(binary.NativeEndian.Uint16(list[direntLength:]))
	if size <= direntName || size > len(list) {
		return nil, nil, fmt.Errorf("%w: a directory entry has %d bytes", unix.EIO, size)
	}
	entry = list[:size]
	for i := direntName; i < size; i++ {
		if entry[i] == 0 {
			return entry, entry[direntName : i+1], nil
		}
	}
	return nil, nil, fmt.Errorf("%w: a directory entry has no end", unix.EIO)
}

// link is readlinkat(2) without a copy of the name, which ends with a zero
// byte. What is no link has none: EINVAL.
func (d *Dir) link(name []byte) ([]byte, error) {
	buf := *d.links
	n, _, errno := unix.Syscall6(unix.SYS_READLINKAT, uintptr(d.fd), uintptr(unsafe.Pointer(&name[0])),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0)
	if errno != 0 {
		return nil, errno
	}
	return buf[:n], nil
}

// Close releases the directory.
func (d *Dir) Close() error { return unix.Close(d.fd) }
