// SPDX-License-Identifier: Apache-2.0

package file

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// root is the host's file system as the exporter sees it: paths are those of
// the host, and symbolic links stay below it (openat2(2), RESOLVE_IN_ROOT).
type root struct {
	dir    *os.File
	prefix string
}

func openRoot(rootfs string) (*root, error) {
	dir, err := os.OpenFile(rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the root file system: %w", err)
	}
	prefix, err := os.Readlink(fdPath(int(dir.Fd())))
	if err != nil {
		dir.Close()
		return nil, fmt.Errorf("find the path of %s: %w", rootfs, err)
	}
	return &root{dir: dir, prefix: strings.TrimSuffix(prefix, "/")}, nil
}

func (r *root) close() error { return r.dir.Close() }

func fdPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// open opens a host path without opening what it names (O_PATH).
func (r *root) open(p string, flags int) (int, error) {
	how := unix.OpenHow{
		Flags:   uint64(unix.O_PATH | unix.O_CLOEXEC | flags),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	fd, err := unix.Openat2(int(r.dir.Fd()), relative(p), &how)
	if errors.Is(err, unix.ENOSYS) && r.prefix == "" { // before 5.6; links cannot lead out of /
		fd, err = unix.Openat(int(r.dir.Fd()), relative(p), unix.O_PATH|unix.O_CLOEXEC|flags, 0)
	}
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: p, Err: err}
	}
	return fd, nil
}

// real is the path of an existing file with every link resolved, and its type.
func (r *root) real(p string) (string, uint32, error) {
	fd, err := r.open(p, 0)
	if err != nil {
		return "", 0, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", 0, &os.PathError{Op: "stat", Path: p, Err: err}
	}
	name, err := os.Readlink(fdPath(fd))
	if err != nil {
		return "", 0, err
	}
	return path.Clean("/" + strings.TrimPrefix(name, r.prefix)), st.Mode & unix.S_IFMT, nil
}

// entries are the names in a directory, at most limit.
func (r *root) entries(p string, limit int) ([]string, error) {
	fd, err := r.open(p, unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	dir, err := os.Open(fdPath(fd))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(limit)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, err
}

// read returns the content of a regular file of at most limit bytes.
func (r *root) read(p string, limit int64) ([]byte, error) {
	fd, err := r.open(p, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > limit {
		return nil, fmt.Errorf("%s is no regular file of at most %d bytes", p, limit)
	}
	f, err := os.Open(fdPath(fd))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// stamp changes when the name at p comes to mean something else, or, for a
// directory, when entries come or go. The zero stamp means: nothing is there.
type stamp struct {
	device, inode uint64
	modified      unix.Timespec
}

func (r *root) stamp(p string) stamp {
	var st unix.Stat_t
	if unix.Fstatat(int(r.dir.Fd()), relative(p), &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return stamp{}
	}
	s := stamp{device: uint64(st.Dev), inode: st.Ino}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		s.modified = st.Mtim
	}
	return s
}

func relative(p string) string {
	if p = strings.TrimPrefix(p, "/"); p == "" {
		return "."
	}
	return p
}
