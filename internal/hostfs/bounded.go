// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"context"
	"os"
	"strconv"
)

// View opens a regular file and lends it to f, both within the time of one
// call: a file system that stops answering in the middle of f costs the
// caller CallTimeout, and f is left behind with the file. f must not touch
// what the caller reads after an error: it may still be running.
func View[T any](ctx context.Context, t *Tree, name string, f func(file *os.File, info Info) (T, error)) (T, error) {
	return do(ctx, t.calls, "read", name, func() (T, error) {
		fd, st, err := t.openRegular(name)
		if err != nil {
			var none T
			return none, err
		}
		return lend(fd, name, info(st), f)
	}, nil)
}

// ViewExe is View for the file the process runs, also when its name is gone.
func ViewExe[T any](ctx context.Context, p *Process, f func(file *os.File, info Info) (T, error)) (T, error) {
	return do(ctx, p.calls, "read", "exe of a process", func() (T, error) {
		var none T
		handle, err := p.follow("exe", 0)
		if err != nil {
			return none, err
		}
		defer closeFD(handle)
		fd, st, err := reopenRegular(handle)
		if err != nil {
			return none, err
		}
		return lend(fd, "exe", info(st), f)
	}, nil)
}

// Batch calls f with the same tree, on which many calls together take the time
// of one: for some dozens of small files. A file system that does not answer
// costs the caller CallTimeout, and f is left behind, so it must not touch what
// the caller reads after an error.
func Batch[T any](ctx context.Context, t *Tree, name string, f func(direct *Tree) (T, error)) (T, error) {
	return do(ctx, t.calls, "read", name, func() (T, error) {
		direct := *t
		direct.calls, direct.beyond = nil, t.calls
		if direct.dir == nil {
			dir, err := t.top()
			if err != nil {
				var none T
				return none, err
			}
			defer func() { _ = dir.Close() }()
			direct.dir = dir
		}
		return f(&direct)
	}, nil)
}

// BatchOf is Batch for a process. drop gets a result that comes too late.
func BatchOf[T any](ctx context.Context, p *Process, f func(direct *Process) (T, error), drop func(T)) (T, error) {
	return do(ctx, p.calls, "read", "/proc/"+strconv.Itoa(p.Pid), func() (T, error) {
		direct := *p.Tree
		direct.calls, direct.beyond = nil, p.calls
		return f(&Process{Tree: &direct, Pid: p.Pid})
	}, drop)
}

// Direct calls f with a tree whose calls are not bounded: inside of a Batch, for
// a tree that was opened there.
func Direct(t *Tree, f func(direct *Tree) error) error {
	direct := *t
	direct.calls, direct.beyond = nil, t.calls
	return f(&direct)
}

func lend[T any](fd int, name string, i Info, f func(*os.File, Info) (T, error)) (T, error) {
	file, err := newFile(fd, name)
	if err != nil {
		var none T
		return none, err
	}
	defer func() { _ = file.Close() }()
	return f(file, i)
}
