// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/hostfs"
	"security-exporter/internal/sensor/event"
)

const (
	// believed is how long an answer of /proc stands, whatever the threads of
	// the process call themselves, and how long one that had no answer is not
	// asked for again.
	believed = time.Second
	// tick is the unit of times in /proc/PID/stat: USER_HZ.
	tick = time.Second / 100
	// The table: a thread group lies in the set of its number, for a kernel
	// hands out numbers in order.
	imageSets, imageWays = 1024, 4
)

// Executables tells which program a thread group runs, for the events of which
// the kernel's programs cannot: a TCP connection is made in an interrupt. It
// is safe for concurrent use. A lookup that is remembered allocates nothing.
//
// It learns from the events that have the path, and asks /proc about processes
// that are older or that it has lost track of. What it remembers counts only
// if the thread still has the name that the exec gave it, and the process the
// same parent and cgroup: execs may be sampled out, numbers be used again, and
// children of a fork run what their parent ran. Otherwise the path stays
// empty: a process that has ended cannot be asked any more.
type Executables struct {
	root *hostfs.Root
	// behind makes the events known that another ring still holds.
	behind func()
	// clocks are CLOCK_MONOTONIC and CLOCK_BOOTTIME: events have the one,
	// /proc has the other.
	clocks func() (monotonic, boot time.Duration)

	mu      sync.Mutex // guards what follows
	budget  budget
	images  [imageSets][imageWays]image
	counted ExecutableStats
}

// image is what one thread group runs.
type image struct {
	since time.Duration // when it was first seen to run this
	used  time.Duration
	// asked is when /proc was, 0: never.
	asked        time.Duration
	cgroup       uint64
	tgid, parent uint32
	comm         [16]byte
	commSize     uint8
	size         uint16 // 0: not to be found
	path         [abi.TextLen]byte
}

// ExecutableStats are counts since the start.
type ExecutableStats struct {
	// Evicted thread groups made place for others; they may have ended.
	Evicted uint64
	// Gone: the process had ended. Changed: it runs something else by now, or
	// may do so. Budget: asking would have taken more time than is allowed.
	Gone, Changed, Budget uint64
}

// NewExecutables returns an empty table. behind is called when a process that
// has ended is not known; it may read what another ring holds. It is optional.
func NewExecutables(root *hostfs.Root, behind func()) *Executables {
	return &Executables{root: root.Isolate(), behind: behind, clocks: bothClocks, budget: budget{now: time.Now}}
}

func bothClocks() (monotonic, boot time.Duration) {
	var m, b unix.Timespec
	// They cannot fail with clocks that exist.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &m)
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &b)
	return time.Duration(m.Nano()), time.Duration(b.Nano())
}

// Stats are the counts now.
func (x *Executables) Stats() ExecutableStats {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.counted
}

// Fill learns from an event that has its executable, and gives it to one that
// has none but a caller. The path is put in room, which is returned for the
// next time: each goroutine has its own.
func (x *Executables) Fill(e *event.Event, room []byte) []byte {
	switch {
	case e.TGID == 0:
	case len(e.Executable) > 0:
		// A privilege changed by an exec has the path of what will run.
		if e.Kind == event.Exec || e.Kind == event.File || e.Kind == event.Connect {
			x.learn(e)
		}
	case e.Kind == event.Connect || e.Kind == event.ConnectError:
		room = x.find(e, room[:0])
		e.Executable = room
		// A path that is cut begins without a slash.
		e.Truncated = e.Truncated || (len(room) > 0 && room[0] != '/')
	}
	return room
}

func (x *Executables) learn(e *event.Event) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if i := x.known(e.TGID); i != nil && e.Kind != event.Exec && i.is(e.Executable) {
		// A thread that calls itself something else says nothing new.
		i.used = max(i.used, e.Monotonic)
		return
	}
	x.put(e, e.Executable, 0)
}

// find appends the path to room.
func (x *Executables) find(e *event.Event, room []byte) []byte {
	x.mu.Lock()
	if i := x.known(e.TGID); i != nil && i.believe(e) {
		i.used = max(i.used, e.Monotonic)
		defer x.mu.Unlock()
		return append(room, i.path[:i.size]...)
	}
	if !x.budget.open() {
		defer x.mu.Unlock()
		return x.inherited(e, room, &x.counted.Budget)
	}
	x.mu.Unlock()

	begin := x.budget.now()
	path, err := x.ask(e)
	if errors.Is(err, hostfs.ErrNotExist) {
		x.lookBehind(e)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.budget.charge(begin)
	if err == nil {
		x.put(e, path, e.Monotonic)
		return append(room, path...)
	}
	// Its parent may have ended before it did, and somebody else be its parent.
	if i := x.known(e.TGID); i != nil && errors.Is(err, hostfs.ErrNotExist) && i.fits(e) {
		return append(room, i.path[:i.size]...)
	}
	reason := &x.counted.Gone
	if errors.Is(err, errChanged) {
		reason = &x.counted.Changed
	}
	return x.inherited(e, room, reason)
}

// lookBehind learns more for a process that has ended: what waits in another
// ring, and what its parent runs.
func (x *Executables) lookBehind(e *event.Event) {
	if x.behind != nil {
		x.behind()
	}
	if e.Parent == 0 || x.fits(e, e.TGID) || x.fits(e, e.Parent) {
		return
	}
	about := event.Event{Monotonic: e.Monotonic, TGID: e.Parent, TID: e.Parent, CgroupID: e.CgroupID, Comm: e.Comm}
	if path, err := x.ask(&about); err == nil {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.put(&about, path, 0)
	}
}

// inherited is what the parent runs, if the event's process can be a fork of
// it that ran nothing else: only then has it the same name.
func (x *Executables) inherited(e *event.Event, room []byte, reason *uint64) []byte {
	parent := x.known(e.Parent)
	if parent != nil && e.Parent != 0 && parent.fits(e) {
		room = append(room, parent.path[:parent.size]...)
		x.put(e, room, 0)
		return room
	}
	*reason++
	x.put(e, nil, e.Monotonic)
	return room
}

var errChanged = errors.New("the process has changed since the event")

// ask reads what the thread runs now, and makes sure that it is the thread of
// the event and has run nothing else since: that would have renamed it.
func (x *Executables) ask(e *event.Event) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p, err := x.root.Process(int(e.TID))
	if errors.Is(err, hostfs.ErrNotExist) && e.TID != e.TGID {
		p, err = x.root.Process(int(e.TGID)) // the thread alone has ended
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = p.Close() }()
	path, err := p.Readlink(ctx, "exe")
	if err != nil {
		return nil, err
	}
	// After the link, so that this tells what was linked.
	name, ticks, err := p.NameAndStart(ctx)
	if err != nil {
		return nil, err
	}
	monotonic, boot := x.clocks()
	started := time.Duration(ticks)*tick - (boot - monotonic)
	if started > e.Monotonic || (p.Pid == int(e.TID) && name != string(e.Comm)) {
		return nil, errChanged
	}
	path = strings.TrimSuffix(path, " (deleted)")
	if len(path) > abi.TextLen {
		path = path[len(path)-abi.TextLen:]
	}
	return []byte(path), nil
}

func (x *Executables) fits(e *event.Event, tgid uint32) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	i := x.known(tgid)
	return i != nil && i.fits(e)
}

// known is the thread group's entry, nil if there is none.
func (x *Executables) known(tgid uint32) *image {
	set := &x.images[tgid%imageSets]
	for i := range set {
		if set[i].tgid == tgid {
			return &set[i]
		}
	}
	return nil
}

// put enters what the thread group of the event runs, and when /proc was asked.
// An entry that is newer than the event stays: each ring is read on its own.
func (x *Executables) put(e *event.Event, path []byte, asked time.Duration) {
	i := x.known(e.TGID)
	switch {
	case i == nil:
		i = x.oldest(e.TGID)
		i.since = e.Monotonic
	case i.since > e.Monotonic:
		return
	case !i.is(path):
		i.since = e.Monotonic
	}
	i.tgid, i.parent, i.cgroup = e.TGID, e.Parent, e.CgroupID
	i.used, i.asked = max(i.used, e.Monotonic), asked
	i.commSize = uint8(copy(i.comm[:], e.Comm))
	i.size = uint16(copy(i.path[:], path))
}

func (x *Executables) oldest(tgid uint32) *image {
	set := &x.images[tgid%imageSets]
	out := &set[0]
	for i := range set {
		if set[i].tgid == 0 {
			return &set[i]
		}
		if set[i].used < out.used {
			out = &set[i]
		}
	}
	x.counted.Evicted++
	*out = image{}
	return out
}

func (i *image) is(path []byte) bool { return bytes.Equal(i.path[:i.size], path) }

// fits says whether the entry may hold for an event of its process or of a
// fork of that: execs give a new name.
func (i *image) fits(e *event.Event) bool {
	return i.size > 0 && i.since <= e.Monotonic && i.cgroup == e.CgroupID && bytes.Equal(i.comm[:i.commSize], e.Comm)
}

// believe says whether the entry holds for an event of its process.
func (i *image) believe(e *event.Event) bool {
	if i.since > e.Monotonic || i.parent != e.Parent || i.cgroup != e.CgroupID {
		return false
	}
	// Other threads of a process that was just asked have other names.
	return i.fits(e) || (i.asked != 0 && e.Monotonic-i.asked < believed)
}
