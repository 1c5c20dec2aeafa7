// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Tree is one directory tree. Paths are given as seen from inside: "/etc" and
// "etc" are the same. It is safe for concurrent use.
type Tree struct {
	path string
	// dir is the tree's top where it has no lasting path: /proc/PID and what
	// /proc/PID/root leads to.
	dir *os.File
	// pseudo trees are /proc and /sys: looking up a name there cannot hang,
	// so only reading is given to a worker.
	pseudo bool
	// calls is nil in a batch, which is bounded as a whole; beyond has those of
	// trees that outlive it.
	calls, beyond *calls
	resolve       resolver
}

// Info is what stat(2) says about a file.
type Info struct {
	// Mode has the type and the permission bits as package fs defines them.
	Mode fs.FileMode
	// Perm is the low twelve bits of st_mode: rwx, sticky, setgid, setuid.
	Perm       uint32
	UID, GID   uint32
	Size       int64
	ModTime    time.Time
	ChangeTime time.Time
	Dev, Ino   uint64
}

// Entry is one name in a directory. Type has the type bits only.
type Entry struct {
	Name string
	Type fs.FileMode
}

// Link is an Entry with the text of the link, empty if it is none.
type Link struct {
	Entry
	Target string
}

// ReadFile returns the content of a regular file of at most DefaultLimit
// bytes.
func (t *Tree) ReadFile(ctx context.Context, name string) ([]byte, error) {
	return t.ReadLimit(ctx, name, DefaultLimit)
}

// ReadLimit returns the content of a regular file, and ErrTooLarge if that is
// more than limit bytes: never a part of it. A file of /proc or /sys, which
// claims to be empty, is read to its end under the same limit.
func (t *Tree) ReadLimit(ctx context.Context, name string, limit int) ([]byte, error) {
	return do(ctx, t.calls, "read", name, func() ([]byte, error) { return t.read(name, limit) }, nil)
}

func (t *Tree) read(name string, limit int) ([]byte, error) {
	fd, st, err := t.openRegular(name)
	if err != nil {
		return nil, err
	}
	defer closeFD(fd)
	return readAll(fd, st.Size, limit)
}

// ReadValue returns a small file without the white space around it: the form
// of /proc/sys and /sys.
func (t *Tree) ReadValue(ctx context.Context, name string) (string, error) {
	b, err := t.ReadLimit(ctx, name, ValueLimit)
	return strings.TrimSpace(string(b)), err
}

// Open opens a regular file for random access, for databases and archives.
// Only the opening is bounded in time; the caller bounds size and reading,
// and closes the file.
func (t *Tree) Open(ctx context.Context, name string) (*os.File, error) {
	return do(ctx, t.calls, "open", name, func() (*os.File, error) {
		fd, _, err := t.openRegular(name)
		if err != nil {
			return nil, err
		}
		return newFile(fd, name)
	}, func(f *os.File) { _ = f.Close() })
}

// Stat describes what the name leads to, links followed.
func (t *Tree) Stat(ctx context.Context, name string) (Info, error) {
	return t.stat(ctx, name, true)
}

// Lstat describes the name itself, a link not followed.
func (t *Tree) Lstat(ctx context.Context, name string) (Info, error) {
	return t.stat(ctx, name, false)
}

func (t *Tree) stat(ctx context.Context, name string, follow bool) (Info, error) {
	return lookup(ctx, t, "stat", name, follow, func(fd int) (Info, error) {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return Info{}, err
		}
		return info(&st), nil
	})
}

// Readlink returns the text of a symbolic link, as it is. Text that points
// outside is only text: give it back to the tree, never to package os.
func (t *Tree) Readlink(ctx context.Context, name string) (string, error) {
	return lookup(ctx, t, "readlink", name, false, func(fd int) (string, error) {
		return readlinkFD(fd, "")
	})
}

// ReadDir lists a directory by name, at most MaxEntries.
func (t *Tree) ReadDir(ctx context.Context, name string) ([]Entry, error) {
	return lookup(ctx, t, "readdir", name, true, func(fd int) ([]Entry, error) {
		f, err := openDir(fd)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		return entries(f)
	})
}

// ReadLinks is ReadDir with the text of every symbolic link, all in one call.
// A link that vanishes meanwhile is left out.
func (t *Tree) ReadLinks(ctx context.Context, name string) ([]Link, error) {
	return lookup(ctx, t, "readdir", name, true, func(fd int) ([]Link, error) {
		f, err := openDir(fd)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		list, err := entries(f)
		out := make([]Link, 0, len(list))
		buf := make([]byte, unix.PathMax)
		for _, e := range list {
			l := Link{Entry: e}
			if e.Type == fs.ModeSymlink {
				n, err := unix.Readlinkat(int(f.Fd()), e.Name, buf)
				if err != nil {
					continue
				}
				l.Target = string(buf[:n])
			}
			out = append(out, l)
		}
		return out, err
	})
}

// Glob returns the paths that match a pattern whose last component is a
// path.Match pattern, sorted. A missing directory has none; one that cannot
// be read is an error. Like a shell, * does not match a leading dot.
func (t *Tree) Glob(ctx context.Context, pattern string) ([]string, error) {
	dir, last := path.Split(pattern)
	list, err := t.ReadDir(ctx, dir)
	if err != nil {
		if isMissing(err) {
			return nil, nil
		}
		return nil, err
	}
	var out []string
	for _, e := range list {
		if strings.HasPrefix(e.Name, ".") && !strings.HasPrefix(last, ".") {
			continue
		}
		ok, err := path.Match(last, e.Name)
		if err != nil {
			return nil, pathError("glob", pattern, err)
		}
		if ok {
			out = append(out, dir+e.Name)
		}
	}
	return out, nil
}

// Handle resolves a name and calls f with a path of the form /proc/self/fd/N
// that leads to the same object for as long as f runs. It is for calls that
// take only a path: inotify_add_watch, getxattr, statfs, a database library.
func (t *Tree) Handle(ctx context.Context, name string, f func(procPath string) error) error {
	_, err := do(ctx, t.calls, "open", name, func() (struct{}, error) {
		return with(t, name, true, func(fd int) (struct{}, error) {
			return struct{}{}, f(selfPath(fd))
		})
	}, nil)
	return err
}

// lookup resolves a name and gives the O_PATH handle to f, in a worker unless
// the tree cannot hang.
func lookup[T any](ctx context.Context, t *Tree, op, name string, follow bool, f func(fd int) (T, error)) (T, error) {
	if t.pseudo || t.calls == nil {
		if err := context.Cause(ctx); err != nil {
			var none T
			return none, pathError(op, name, fmt.Errorf("%w: %w", ErrHung, err))
		}
		v, err := with(t, name, follow, f)
		return v, pathError(op, name, err)
	}
	return do(ctx, t.calls, op, name, func() (T, error) { return with(t, name, follow, f) }, nil)
}

func with[T any](t *Tree, name string, follow bool, f func(fd int) (T, error)) (T, error) {
	var none T
	fd, err := t.handle(name, follow)
	if err != nil {
		return none, err
	}
	defer closeFD(fd)
	return f(fd)
}

// handle returns an O_PATH handle for a name, which the caller closes.
func (t *Tree) handle(name string, follow bool) (int, error) {
	if strings.Trim(name, "/") == "" {
		name = "."
	}
	if t.dir != nil {
		return control(t.dir, func(base int) (int, error) { return t.resolve(base, name, follow) })
	}
	base, err := t.base()
	if err != nil {
		return -1, err
	}
	defer closeFD(base)
	return t.resolve(base, name, follow)
}

// base opens the top of a tree that has a path.
func (t *Tree) base() (int, error) {
	base, err := openat(unix.AT_FDCWD, t.path, unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) {
		// Not ErrNotExist: without its tree nothing on the host is "not there".
		return -1, fmt.Errorf("the directory %s is missing: mount it or correct the path option", t.path)
	}
	if err != nil {
		return -1, fmt.Errorf("directory %s: %w", t.path, err)
	}
	return base, nil
}

func (t *Tree) top() (*os.File, error) {
	base, err := t.base()
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(base), t.path), nil
}

// control lends the handle of a file to f: a Close meanwhile, by a caller
// that gave f up, takes effect when f has returned.
func control[T any](file *os.File, f func(fd int) (T, error)) (T, error) {
	var v T
	raw, err := file.SyscallConn()
	if err != nil {
		return v, err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { v, inner = f(int(fd)) }); err != nil {
		return v, err
	}
	return v, inner
}

// openRegular checks the object before it opens it for reading.
func (t *Tree) openRegular(name string) (int, *unix.Stat_t, error) {
	if t.pseudo && t.dir != nil && !strings.Contains(name, "/") {
		// /proc/PID holds files, directories and links, so what is no link can
		// be opened at once.
		if fd, st, err := openPlain(t.dir, name); err == nil {
			return fd, st, nil
		}
	}
	handle, err := t.handle(name, true)
	if err != nil {
		return -1, nil, err
	}
	defer closeFD(handle)
	return reopenRegular(handle)
}

func openPlain(dir *os.File, name string) (int, *unix.Stat_t, error) {
	var st unix.Stat_t
	fd, err := control(dir, func(base int) (int, error) {
		return openat(base, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_NOFOLLOW)
	})
	if err != nil {
		return -1, nil, err
	}
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		closeFD(fd)
		return -1, nil, ErrNotRegular
	}
	return fd, &st, nil
}

func reopenRegular(handle int) (int, *unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstat(handle, &st); err != nil {
		return -1, nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, nil, fmt.Errorf("%w but %s", ErrNotRegular, info(&st).kind())
	}
	fd, err := openat(unix.AT_FDCWD, selfPath(handle), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return -1, nil, err
	}
	return fd, &st, nil
}

// readAll reads to the end. One byte above the limit tells a file that just
// fits from one that goes on.
func readAll(fd int, size int64, limit int) ([]byte, error) {
	if size > int64(limit) {
		return nil, fmt.Errorf("%w of %d bytes: %d bytes", ErrTooLarge, limit, size)
	}
	buf := make([]byte, 0, max(int(size), 511)+1)
	for {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, len(buf))
		}
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return buf, nil
		}
		if buf = buf[:len(buf)+n]; len(buf) > limit {
			return nil, fmt.Errorf("%w of %d bytes", ErrTooLarge, limit)
		}
		if int64(len(buf)) == size {
			// There was room for one byte more, so this is the end.
			return buf, nil
		}
	}
}

func openDir(handle int) (*os.File, error) {
	fd, err := openat(handle, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return newFile(fd, selfPath(fd))
}

// newFile hands a descriptor to package os as a blocking one: regular files
// and directories are always ready, so the poller has no use for them.
func newFile(fd int, name string) (*os.File, error) {
	if err := unix.SetNonblock(fd, false); err != nil {
		closeFD(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func entries(f *os.File) ([]Entry, error) {
	list, err := f.ReadDir(MaxEntries + 1)
	if err != nil && len(list) == 0 && !isEOF(err) {
		return nil, err
	}
	if len(list) > MaxEntries {
		return nil, fmt.Errorf("%w of %d entries", ErrTooLarge, MaxEntries)
	}
	out := make([]Entry, len(list))
	for i, e := range list {
		out[i] = Entry{Name: e.Name(), Type: e.Type()}
	}
	slices.SortFunc(out, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func selfPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }
