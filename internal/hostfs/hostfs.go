// SPDX-License-Identifier: Apache-2.0

// Package hostfs reads the files of a host that may be hostile. A Root has
// three trees: the root file system, /proc and /sys, each possibly mounted
// elsewhere. Every path is resolved inside its tree: an absolute symbolic
// link or a ".." cannot leave it. Only regular files are read, never more
// than a cap, and a file system that does not answer costs the caller a few
// seconds, not its life.
//
// Resolution is openat2(2) with RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS
// (Linux 5.6). On an older kernel, or below a seccomp filter that refuses the
// call, the same walk is made one component at a time with O_PATH|O_NOFOLLOW
// and a stack of directory handles, so ".." cannot be raced either; there a
// magic link is followed as text, inside the tree.
//
// A file is opened with O_PATH first, which opens no device and wakes no FIFO
// writer, and then reopened for reading through /proc/self/fd, so the object
// that was checked is the object that is read.
package hostfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Limits that apply unless a call says otherwise.
const (
	// DefaultLimit is the largest file ReadFile returns, in bytes.
	DefaultLimit = 16 << 20
	// ValueLimit is the largest file ReadValue returns, in bytes.
	ValueLimit = 64 << 10
	// MaxEntries is the most entries a directory may have for ReadDir.
	MaxEntries = 1 << 17
	// CallTimeout is how long one call waits for a file system.
	CallTimeout = 3 * time.Second
	// MaxCalls is how many calls of one Root may be under way at a time,
	// those given up but not returned by the kernel included.
	MaxCalls = 8
)

// Errors besides those of the kernel. All arrive wrapped in an *fs.PathError
// that names the path as it is inside the tree; compare with errors.Is.
var (
	// ErrNotExist: nothing is there. To a collector it means not applicable.
	ErrNotExist = fs.ErrNotExist
	// ErrPermission: something is there that may not be read.
	ErrPermission = fs.ErrPermission
	// ErrTooLarge: the file is larger than the cap, or the directory has
	// more entries.
	ErrTooLarge = errors.New("larger than the limit")
	// ErrNotRegular: a FIFO, socket, device or directory, not a file.
	ErrNotRegular = errors.New("not a regular file")
	// ErrHung: the file system did not answer in time, or so many earlier
	// calls still hang that no further one is started.
	ErrHung = errors.New("no answer from the file system in time")
)

// Paths says where the three trees are mounted for the exporter.
type Paths struct {
	Rootfs, Procfs, Sysfs string
}

// Root is the host as a collector sees it. It keeps nothing open and is safe
// for concurrent use.
type Root struct {
	Rootfs, Procfs, Sysfs *Tree
}

// New returns a Root for the three trees; an empty path means /, /proc or
// /sys. A path that is missing shows at the first read, not here.
func New(p Paths) *Root {
	return newRoot(p, pickResolver())
}

func newRoot(p Paths, res resolver) *Root {
	c := newCalls()
	tree := func(path, standard string, pseudo bool) *Tree {
		if path == "" {
			path = standard
		}
		return &Tree{path: path, pseudo: pseudo, calls: c, resolve: res}
	}
	return &Root{
		Rootfs: tree(p.Rootfs, "/", false),
		Procfs: tree(p.Procfs, "/proc", true),
		Sysfs:  tree(p.Sysfs, "/sys", true),
	}
}

// Isolate returns a Root for the same trees whose hung calls are counted
// apart, so that one user's dead NFS mount does not stop another's reads.
func (r *Root) Isolate() *Root {
	c := newCalls()
	tree := func(t *Tree) *Tree {
		n := *t
		n.calls = c
		return &n
	}
	return &Root{Rootfs: tree(r.Rootfs), Procfs: tree(r.Procfs), Sysfs: tree(r.Sysfs)}
}

// Pids lists the process ids in /proc, ascending as text. Some may be gone
// when the caller gets to them.
func (r *Root) Pids(ctx context.Context) ([]int, error) {
	entries, err := r.Procfs.ReadDir(ctx, "/")
	if err != nil {
		return nil, err
	}
	pids := make([]int, 0, len(entries))
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// call limits what a caller waits for and what hangs behind its back.
type calls struct {
	slots   chan struct{}
	timeout time.Duration
}

func newCalls() *calls {
	return &calls{slots: make(chan struct{}, MaxCalls), timeout: CallTimeout}
}

// do runs f and waits for it at most until ctx ends or the call timeout has
// passed. Then f is left behind with its slot, and drop gets what it returns
// if it ever does.
func do[T any](ctx context.Context, c *calls, op, path string, f func() (T, error), drop func(T)) (T, error) {
	type result struct {
		v   T
		err error
	}
	var none T
	if c == nil {
		if err := context.Cause(ctx); err != nil {
			return none, pathError(op, path, fmt.Errorf("%w: %w", ErrHung, err))
		}
		v, err := f()
		return v, pathError(op, path, err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	late := func() (T, error) {
		return none, pathError(op, path, fmt.Errorf("%w: %w", ErrHung, context.Cause(ctx)))
	}
	if ctx.Err() != nil {
		return late()
	}
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return late()
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		<-c.slots
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, pathError(op, path, r.err)
	case <-ctx.Done():
		if drop != nil {
			go func() {
				if r := <-done; r.err == nil {
					drop(r.v)
				}
			}()
		}
		return late()
	}
}

// pathError names the path. A process that ended in between (ESRCH) is gone
// like a file is.
func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, unix.ESRCH) {
		err = fs.ErrNotExist
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}
