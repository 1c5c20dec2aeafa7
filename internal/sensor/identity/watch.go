// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxWatches is how many directories of each hierarchy are watched for new
// ones. What comes below others is learned from its first event.
const maxWatches = 1024

// watcher learns cgroups when they are made: a container may have gone when
// its first event is read, up to 50 ms later. It watches the directories in
// which containers are put, not containers and units themselves. inotify(7).
type watcher struct {
	r     *Resolver
	h     *hierarchy
	file  *os.File
	paths map[int32]string // by watch descriptor
}

// watch learns until ctx ends.
func (r *Resolver) watch(ctx context.Context, h *hierarchy) error {
	if h.tree == nil {
		return nil
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watch cgroups: %w", err)
	}
	w := &watcher{r: r, h: h, file: os.NewFile(uintptr(fd), "inotify"), paths: map[int32]string{}}
	defer context.AfterFunc(ctx, func() { _ = w.file.Close() })()
	defer w.file.Close()
	w.add(ctx, fd, "/")
	buffer := make([]byte, 64<<10)
	for {
		n, err := w.file.Read(buffer)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("watch cgroups: %w", err)
		}
		w.take(ctx, fd, buffer[:n])
	}
}

// isParent says whether containers may be put into a cgroup.
func isParent(path string) bool {
	t := parsePath(path)
	return t.ContainerID == "" && t.Unit == ""
}

// add watches a directory and those below it, and learns what is there. The
// watch comes first, so nothing is missed between.
func (w *watcher) add(ctx context.Context, fd int, name string) {
	queue := []string{name}
	for at := 0; at < len(queue) && ctx.Err() == nil; at++ {
		name := queue[at]
		w.r.learnPath(ctx, w.h, name)
		if !isParent(name) || len(w.paths) >= maxWatches {
			continue
		}
		wd, err := unix.InotifyAddWatch(fd, filepath.Join(w.h.root, name), unix.IN_CREATE|unix.IN_ONLYDIR|unix.IN_DONT_FOLLOW)
		if err != nil {
			if !errors.Is(err, unix.ENOENT) {
				w.r.log.Debug("Cgroup not watched", "path", name, "err", err)
			}
			continue
		}
		w.paths[int32(wd)] = name
		_ = w.h.below(ctx, name, w.r.limit, &queue) // gone, if it fails
	}
}

// take reads struct inotify_event, one behind the other.
func (w *watcher) take(ctx context.Context, fd int, b []byte) {
	for len(b) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(b))
		mask := binary.NativeEndian.Uint32(b[4:])
		size := int(binary.NativeEndian.Uint32(b[12:]))
		b = b[unix.SizeofInotifyEvent:]
		if size > len(b) {
			return
		}
		name, _, _ := bytes.Cut(b[:size], []byte{0})
		b = b[size:]
		parent, known := w.paths[wd]
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0:
			w.add(ctx, fd, "/")
		case mask&unix.IN_IGNORED != 0:
			delete(w.paths, wd) // the directory has gone
		case known && mask&unix.IN_ISDIR != 0 && len(name) > 0 && !strings.Contains(string(name), "/"):
			w.add(ctx, fd, path.Join(parent, string(name)))
		}
	}
}
