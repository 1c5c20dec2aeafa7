// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"security-exporter/internal/hostfs"
)

const (
	// window is how long changes to one file are gathered before they count
	// as one and run the collectors.
	window = 300 * time.Millisecond
	// checkEvery is how often the files are compared with what they were:
	// what inotify(7) does not show (network file systems, mmap, truncate(2))
	// or could not watch is found then.
	checkEvery = time.Minute
	// maxLinked is how many links after each other are watched.
	maxLinked = 4
	// hungFor is how long a file whose directory does not answer is left alone.
	hungFor = 10 * time.Minute
	// maxSigned is how many matches of a pattern are compared.
	maxSigned = 1024

	structMask = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO |
		unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	contentMask = unix.IN_CLOSE_WRITE | unix.IN_ATTRIB
)

// watcher notices changes to files that may be missing, replaced or moved
// away with their directories. It watches directories, from the top down to
// each file's own, so a file that is replaced needs no new watch; and the
// target itself where the file is a symbolic link. Whenever the directories
// change it looks at all paths afresh and compares.
type watcher struct {
	log   *slog.Logger
	files []string
	// What counts as one (countedAs) is one in notify, changes and pending.
	notify  map[string][]func()
	changes map[string]*atomic.Uint64

	// The rest belongs to the goroutine of run.
	inotify *os.File
	fd      int
	watches map[int32]*interest
	signs   map[string]uint64
	pending map[string]time.Time
	check   time.Time
	failed  bool
	// hung has the files that did not answer, and until when they are left
	// alone. Each file has a root of its own, so that what hangs for one uses up
	// nothing of another's.
	hung  map[string]time.Time
	roots map[string]*hostfs.Tree
}

// interest is what one inotify watch is there for.
type interest struct {
	// next are names on the way to a file, final the last components of files
	// in this directory, self the files that are this inode.
	next  map[string]bool
	final []final
	self  []string
}

// final is a name or pattern, and the entry of files it is the end of.
type final struct{ pattern, file string }

func newWatcher(root *hostfs.Root, log *slog.Logger, files []string, notify map[string][]func()) *watcher {
	w := &watcher{
		log: log, files: files, notify: notify,
		changes: make(map[string]*atomic.Uint64, len(files)),
		pending: make(map[string]time.Time),
		hung:    make(map[string]time.Time),
		roots:   make(map[string]*hostfs.Tree, len(files)),
	}
	for _, f := range files {
		w.changes[countedAs(f)] = new(atomic.Uint64)
		w.roots[f] = root.Isolate().Rootfs
	}
	return w
}

// count is the number of changes so far of the files that count as this one.
func (w *watcher) count(file string) uint64 { return w.changes[file].Load() }

// arm begins to watch; what changes from then on is seen.
func (w *watcher) arm(ctx context.Context) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		w.log.Warn("cannot watch files: changes are found once a minute", "error", os.NewSyscallError("inotify_init1", err))
	} else {
		w.fd = fd
		w.inotify = os.NewFile(uintptr(fd), "inotify")
	}
	w.look(ctx)
}

// run handles events until ctx ends.
func (w *watcher) run(ctx context.Context) {
	if w.inotify == nil {
		w.poll(ctx)
		return
	}
	defer func() { _ = w.inotify.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = w.inotify.SetReadDeadline(time.Now()) })
	defer stop()
	buf := make([]byte, 64<<10)
	for {
		if err := w.inotify.SetReadDeadline(w.nextDeadline()); err != nil {
			w.log.Warn("cannot watch files: changes are found once a minute", "error", err)
			w.poll(ctx)
			return
		}
		if ctx.Err() != nil {
			return
		}
		n, err := w.inotify.Read(buf)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			w.log.Warn("cannot watch files: changes are found once a minute", "error", err)
			w.poll(ctx)
			return
		}
		if w.events(buf[:max(n, 0)]) || !time.Now().Before(w.check) {
			w.look(ctx)
		}
		w.flush(ctx)
	}
}

// poll compares the files once a minute, without inotify.
func (w *watcher) poll(ctx context.Context) {
	ticker := time.NewTicker(checkEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		w.look(ctx)
		for f := range w.pending {
			w.pending[f] = time.Time{}
		}
		w.flush(ctx)
	}
}

func (w *watcher) nextDeadline() time.Time {
	next := w.check
	for _, t := range w.pending {
		if t.Before(next) {
			next = t
		}
	}
	return next
}

// events notes what changed and returns whether to look at all paths again.
// The layout of an event is struct inotify_event of inotify(7).
func (w *watcher) events(b []byte) (look bool) {
	const header = unix.SizeofInotifyEvent
	for len(b) >= header {
		wd := int32(binary.NativeEndian.Uint32(b))
		mask := binary.NativeEndian.Uint32(b[4:])
		end := header + int(binary.NativeEndian.Uint32(b[12:]))
		if end > len(b) {
			return true
		}
		name := strings.TrimRight(string(b[header:end]), "\x00")
		b = b[end:]
		if mask&unix.IN_Q_OVERFLOW != 0 {
			look = true
			continue
		}
		in := w.watches[wd]
		if in == nil {
			continue
		}
		if w.event(in, mask, name) {
			look = true
		}
	}
	return look
}

func (w *watcher) event(in *interest, mask uint32, name string) (look bool) {
	if mask&(unix.IN_IGNORED|unix.IN_UNMOUNT|unix.IN_DELETE_SELF|unix.IN_MOVE_SELF) != 0 {
		return true
	}
	if name == "" {
		for _, f := range in.self {
			w.changed(f)
		}
		return len(in.self) > 0
	}
	for _, f := range in.final {
		if ok, err := path.Match(f.pattern, name); ok && err == nil && !hidden(f.pattern, name) {
			w.changed(f.file)
			// A link may now lead elsewhere.
			look = look || mask&structMask != 0
		}
	}
	return look || mask&structMask != 0 && in.next[name]
}

func hidden(pattern, name string) bool {
	return strings.HasPrefix(name, ".") && !strings.HasPrefix(pattern, ".")
}

// changed opens the window of a file unless it is open.
func (w *watcher) changed(file string) {
	file = countedAs(file)
	if _, open := w.pending[file]; !open {
		w.pending[file] = time.Now().Add(window)
	}
}

// flush counts the changes whose window has passed and runs the collectors.
func (w *watcher) flush(ctx context.Context) {
	now := time.Now()
	for f, t := range w.pending {
		if now.Before(t) {
			continue
		}
		delete(w.pending, f)
		for _, part := range w.files {
			if countedAs(part) == f {
				w.signs[part] = w.sign(ctx, part)
			}
		}
		w.changes[f].Add(1)
		for _, poke := range w.notify[f] {
			poke()
		}
	}
}

// look watches all directories that are there now, drops the watches of those
// that are not, and notes the files that differ from what they were.
func (w *watcher) look(ctx context.Context) {
	w.check = time.Now().Add(checkEvery)
	if w.inotify != nil {
		w.rewatch(ctx)
	}
	signs := make(map[string]uint64, len(w.files))
	for _, f := range w.files {
		signs[f] = w.sign(ctx, f)
		if old, known := w.signs[f]; known && old != signs[f] {
			w.changed(f)
		}
	}
	w.signs = signs
}

func (w *watcher) rewatch(ctx context.Context) {
	old := w.watches
	w.watches = make(map[int32]*interest)
	w.failed = false
	for _, f := range w.files {
		if !w.isHung(f) {
			w.watchPath(ctx, f, f, maxLinked)
		}
	}
	for wd := range old {
		if w.watches[wd] == nil {
			// The kernel may have dropped it already.
			_, _ = unix.InotifyRmWatch(w.fd, uint32(wd))
		}
	}
}

// watchPath watches each directory on the way to a file, as far as they
// exist: the last that does will say when the next appears. Where the file is a
// symbolic link, the way to what it leads to is watched as well, since any link
// on it may be exchanged.
func (w *watcher) watchPath(ctx context.Context, place, file string, links int) {
	names := strings.Split(strings.Trim(place, "/"), "/")
	dir := "/"
	for i, name := range names {
		last := i == len(names)-1
		mask := uint32(structMask | unix.IN_ONLYDIR)
		if last {
			mask |= contentMask
		}
		in := w.add(ctx, file, dir, mask)
		if in == nil {
			return
		}
		if last {
			in.final = append(in.final, final{name, file})
		} else {
			in.next[name] = true
		}
		dir = path.Join(dir, name)
	}
	if links == 0 {
		return
	}
	st, err := w.roots[file].Lstat(ctx, place)
	w.note(file, err)
	if err != nil || st.Mode.Type() != fs.ModeSymlink {
		return
	}
	if in := w.add(ctx, file, place, contentMask|unix.IN_DELETE_SELF|unix.IN_MOVE_SELF); in != nil {
		in.self = append(in.self, file)
	}
	target, err := w.roots[file].Readlink(ctx, place)
	if err != nil {
		return
	}
	if !path.IsAbs(target) {
		target = path.Join(path.Dir(place), target)
	}
	if target = path.Clean(target); target != "/" {
		w.watchPath(ctx, target, file, links-1)
	}
}

// note remembers a file that does not answer.
func (w *watcher) note(file string, err error) {
	if errors.Is(err, hostfs.ErrHung) {
		w.hung[file] = time.Now().Add(hungFor)
	}
}

func (w *watcher) isHung(file string) bool { return time.Now().Before(w.hung[file]) }

// add watches what a path leads to, on the way to a file; nil if it leads
// nowhere.
func (w *watcher) add(ctx context.Context, file, name string, mask uint32) *interest {
	var wd int
	err := w.roots[file].Handle(ctx, name, func(p string) (err error) {
		wd, err = unix.InotifyAddWatch(w.fd, p, mask|unix.IN_MASK_ADD)
		return err
	})
	if err != nil {
		w.note(file, err)
		if !errors.Is(err, hostfs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) && !w.failed {
			w.failed = true
			w.log.Warn("cannot watch a file: its changes are found once a minute", "error", err)
		}
		return nil
	}
	in := w.watches[int32(wd)]
	if in == nil {
		in = &interest{next: make(map[string]bool)}
		w.watches[int32(wd)] = in
	}
	return in
}

// sign is a number that differs when a file, or the set of files that match a
// pattern, was changed, replaced, removed or created. Of one that does not
// answer it is the last.
func (w *watcher) sign(ctx context.Context, file string) uint64 {
	if w.isHung(file) {
		return w.signs[file]
	}
	matches := []string{file}
	if strings.ContainsAny(path.Base(file), "*?[") {
		var err error
		if matches, err = w.roots[file].Glob(ctx, file); err != nil {
			w.note(file, err)
			return 1
		}
	}
	h := fnv.New64a()
	for _, m := range matches[:min(len(matches), maxSigned)] {
		st, err := w.roots[file].Stat(ctx, m)
		if w.note(file, err); w.isHung(file) {
			return w.signs[file]
		}
		if err != nil {
			continue
		}
		var b []byte
		for _, v := range []uint64{st.Dev, st.Ino, uint64(st.Size), uint64(st.ChangeTime.UnixNano())} {
			b = binary.NativeEndian.AppendUint64(b, v)
		}
		_, _ = h.Write(append(b, m...))
	}
	return h.Sum64()
}
