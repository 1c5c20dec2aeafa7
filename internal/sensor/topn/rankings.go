// SPDX-License-Identifier: Apache-2.0

package topn

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/metric"
	"security-exporter/internal/sensor/event"
)

// By names a ranking: what is counted, and by which key.
type By uint8

// The rankings.
const (
	Exec           By = iota // executables by exec
	Connect                  // remote addresses by connection, both directions
	ConnectProcess           // executables by connection
	File                     // watched files by access
	FileProcess              // executables by access to watched files
	Privilege                // executables by change of privilege
	byCount
)

// Names are the rankings as labels and queries spell them, in order.
func Names() []string {
	return []string{"exec", "connect", "connect_process", "file", "file_process", "privilege"}
}

// String is the name of the ranking.
func (b By) String() string { return Names()[b] }

// ParseBy is the ranking of a name.
func ParseBy(name string) (By, bool) {
	i := slices.Index(Names(), name)
	return By(max(i, 0)), i >= 0
}

// Limits and defaults of Options.
const (
	DefaultCapacity = 100
	MaxCapacity     = 1000
	DefaultWindow   = 10 * time.Minute
	MinWindow       = 10 * time.Second
)

// Options are the settings of Rankings; what is 0 has its default.
type Options struct {
	// Capacity is how many keys each summary holds.
	Capacity int
	// Window is how far back the sliding window reaches; it moves in tenths.
	Window time.Duration
	// Now is the time since boot as events have it: CLOCK_MONOTONIC, unless a
	// test says otherwise.
	Now func() time.Duration
}

// Rankings keeps all rankings. It is safe for concurrent use.
type Rankings struct {
	capacity int
	window   time.Duration
	now      func() time.Duration
	// Gains that no privilege call made, so that none counts twice.
	gains   [256]bool
	success uint8 // the result of a call that changed something

	mu    sync.Mutex // guards what follows
	clock clock
	by    [byCount]*window
	key   []byte
}

// New returns empty rankings. Their memory is allocated here: less than 20 kB
// for each key of the capacity, so 2 MB for the default.
func New(o Options) *Rankings {
	r := &Rankings{
		capacity: cmp.Or(o.Capacity, DefaultCapacity),
		window:   cmp.Or(o.Window, DefaultWindow),
		now:      o.Now,
		key:      make([]byte, 0, MaxKeyBytes+maxContainer),
	}
	if r.now == nil {
		r.now = monotonic
	}
	r.clock.part = max(1, r.window/subWindows)
	for i := range r.by {
		r.by[i] = newWindow(r.capacity)
	}
	for i, name := range abi.Gains {
		r.gains[i] = name == "userns" || name == "other"
	}
	r.success = uint8(slices.Index(abi.Results, "success"))
	return r
}

func monotonic() time.Duration {
	var now unix.Timespec
	// It cannot fail with a clock that exists.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return time.Duration(now.Nano())
}

// Window is how far back the sliding window reaches at most.
func (r *Rankings) Window() time.Duration { return r.window }

// Granularity is the step by which the window slides.
func (r *Rankings) Granularity() time.Duration { return r.clock.part }

// maxContainer is how much of a container's label a key holds; with it the
// rest of a key is long enough for any label value.
const maxContainer = 64

// maxComm is the size of a comm without its NUL.
const maxComm = 15

// Observe counts one event for the container that its process runs in, empty
// for the host. Nothing of the event is kept.
func (r *Rankings) Observe(e *event.Event, container string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if steps := r.clock.advance(e.Monotonic); steps > 0 {
		r.slide(steps)
	}
	switch e.Kind {
	case event.Kind(abi.EventExec):
		r.count(Exec, container, processKey, e)
	case event.Kind(abi.EventConnect):
		if e.Peer.Addr().IsValid() {
			r.count(Connect, container, addressKey, e)
		}
		r.count(ConnectProcess, container, processKey, e)
	case event.Kind(abi.EventFile):
		if len(e.Name) > 0 {
			r.count(File, container, nameKey, e)
		}
		r.count(FileProcess, container, processKey, e)
	case event.Kind(abi.EventPrivilege):
		if e.Result == r.success {
			r.count(Privilege, container, processKey, e)
		}
	case event.Kind(abi.EventGain):
		if r.gains[e.Gain] {
			r.count(Privilege, container, processKey, e)
		}
	}
}

func (r *Rankings) slide(steps int64) {
	for _, w := range r.by {
		w.slide(steps)
	}
}

func (r *Rankings) count(by By, container string, form func([]byte, *event.Event) []byte, e *event.Event) {
	container = container[:min(len(container), maxContainer)]
	r.key = append(append(r.key[:0], byte(len(container))), container...)
	r.key = form(r.key, e)
	r.by[by].add(r.key, e.Weight)
}

// processKey is the path of the executable: a process chooses its comm, not
// this. In brackets the comm, where the kernel could not tell the path.
func processKey(key []byte, e *event.Event) []byte {
	switch {
	case len(e.Executable) > 0:
		return append(key, e.Executable[:min(len(e.Executable), MaxKeyBytes)]...)
	case len(e.Comm) > 0:
		return append(append(append(key, '['), e.Comm[:min(len(e.Comm), maxComm)]...), ']')
	}
	return append(key, "unknown"...)
}

func nameKey(key []byte, e *event.Event) []byte {
	return append(key, e.Name[:min(len(e.Name), MaxKeyBytes)]...)
}

func addressKey(key []byte, e *event.Event) []byte {
	return e.Peer.Addr().Unmap().WithZone("").AppendTo(key)
}

// Entry is one place of a ranking. The truth lies between Count-Error and
// Count if every event was kept; with sampling, Count itself is an estimate
// with a standard deviation of Deviation at most.
type Entry struct {
	// Key and Container are clean label values.
	Key, Container string
	Count, Error   uint64
	Deviation      float64
}

// Bound is how far Count may be from the truth: the error, and for sampling
// three standard deviations.
func (e Entry) Bound() float64 { return float64(e.Error) + 3*e.Deviation }

// Top is the state of one ranking.
type Top struct {
	By By
	// Entries come heaviest first. No two have the same key and container.
	Entries []Entry
	// Rest is the most that a key which is not among the entries can have.
	Rest uint64
	// Total is the weight of all that was counted.
	Total uint64
	// Span is the time that the ranking covers at most; 0: since the start.
	Span time.Duration
}

// Top returns the n heaviest keys of a ranking over the last span, rounded up
// to whole steps of the window and at most the window; 0: since the start.
func (r *Rankings) Top(by By, n int, span time.Duration) Top {
	top := Top{By: by}
	var m merged
	r.mu.Lock()
	if steps := r.clock.advance(r.now()); steps > 0 {
		r.slide(steps)
	}
	if span <= 0 {
		m = r.by[by].sinceStart(r.capacity)
	} else {
		parts := min(subWindows, (span+r.clock.part-1)/r.clock.part)
		top.Span = parts * r.clock.part
		m = r.by[by].last(r.capacity, int(parts))
	}
	r.mu.Unlock()

	top.Total, top.Rest = m.total, m.floor
	top.Entries = labelled(m.entries)
	if n = max(n, 0); len(top.Entries) > n {
		top.Rest = max(top.Rest, top.Entries[n].Count)
		top.Entries = top.Entries[:n]
	}
	return top
}

// labelled turns keys into labels, and joins those that look the same then.
func labelled(from []counted) []Entry {
	type label struct{ key, container string }
	out := make([]Entry, 0, len(from))
	variances := make([]float64, 0, len(from))
	found := make(map[label]int, len(from))
	for _, c := range from {
		size := 1 + int(c.key[0])
		l := label{metric.Clean(c.key[size:]), metric.Clean(c.key[1:size])}
		at, ok := found[l]
		if !ok {
			at = len(out)
			found[l] = at
			out = append(out, Entry{Key: l.key, Container: l.container})
			variances = append(variances, 0)
		}
		out[at].Count += c.count
		out[at].Error += c.err
		variances[at] += c.variance
	}
	for i := range out {
		out[i].Deviation = math.Sqrt(variances[i])
	}
	slices.SortFunc(out, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Key, b.Key), strings.Compare(a.Container, b.Container))
	})
	return out
}
