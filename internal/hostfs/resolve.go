// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"strings"

	"golang.org/x/sys/unix"
)

// resolver opens path below the directory base with O_PATH. With follow, a
// symbolic link as last component is followed. The caller closes the handle.
type resolver func(base int, path string, follow bool) (int, error)

// How often openat2 is tried again when a rename raced it, and how many links
// the walk follows: the kernel's own limit (MAXSYMLINKS).
const (
	resolveRetries = 64
	maxLinks       = 40
)

// pickResolver asks the kernel once whether it has openat2(2).
func pickResolver() resolver {
	fd, err := resolveOpenat2(unix.AT_FDCWD, ".", true)
	if err != nil {
		return resolveWalk
	}
	closeFD(fd)
	return resolveOpenat2
}

func resolveOpenat2(base int, path string, follow bool) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	if !follow {
		how.Flags |= unix.O_NOFOLLOW
	}
	for tries := 0; ; tries++ {
		fd, err := unix.Openat2(base, path, &how)
		if (err == unix.EAGAIN || err == unix.EINTR) && tries < resolveRetries {
			continue
		}
		return fd, err
	}
}

// resolveWalk does what openat2 does with RESOLVE_IN_ROOT. The stack holds a
// handle for each directory on the way, so ".." is the directory we came
// through, whatever was renamed meanwhile, and never above base.
func resolveWalk(base int, path string, follow bool) (int, error) {
	top, err := openat(base, ".", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	w := walk{stack: []int{top}, rest: components(path), follow: follow}
	defer func() {
		for _, fd := range w.stack {
			closeFD(fd)
		}
	}()
	for len(w.rest) > 0 {
		if err := w.step(); err != nil {
			return -1, err
		}
	}
	last := len(w.stack) - 1
	fd := w.stack[last]
	w.stack = w.stack[:last]
	return fd, nil
}

type walk struct {
	stack  []int
	rest   []string
	links  int
	follow bool
}

func (w *walk) step() error {
	name := w.rest[0]
	w.rest = w.rest[1:]
	if name == ".." {
		if len(w.stack) > 1 {
			w.pop()
		}
		return nil
	}
	fd, err := openat(w.stack[len(w.stack)-1], name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		closeFD(fd)
		return err
	}
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFLNK && (w.follow || len(w.rest) > 0) {
		defer closeFD(fd)
		return w.link(fd)
	}
	if kind != unix.S_IFDIR && len(w.rest) > 0 {
		closeFD(fd)
		return unix.ENOTDIR
	}
	w.stack = append(w.stack, fd)
	return nil
}

func (w *walk) link(fd int) error {
	if w.links++; w.links > maxLinks {
		return unix.ELOOP
	}
	target, err := readlinkFD(fd, "")
	if err != nil {
		return err
	}
	if strings.HasPrefix(target, "/") {
		for len(w.stack) > 1 {
			w.pop()
		}
	}
	w.rest = append(components(target), w.rest...)
	return nil
}

func (w *walk) pop() {
	last := len(w.stack) - 1
	closeFD(w.stack[last])
	w.stack = w.stack[:last]
}

// components splits a path; "." and empty parts carry nothing.
func components(path string) []string {
	var out []string
	for c := range strings.SplitSeq(path, "/") {
		if c != "" && c != "." {
			out = append(out, c)
		}
	}
	return out
}

func openat(dir int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// readlinkFD reads the link name in the directory fd; with an empty name, fd
// itself is the link.
func readlinkFD(fd int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// closeFD closes a handle that was only read: there is nothing to lose.
func closeFD(fd int) { _ = unix.Close(fd) }
