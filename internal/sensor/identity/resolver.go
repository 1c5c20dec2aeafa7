// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
	"security-exporter/internal/sensor/event"
)

// Limits and times of the Resolver.
const (
	// DefaultCapacity is how many cgroups are remembered.
	DefaultCapacity = 16_384
	// sweepInterval is how long a cgroup that has gone is remembered at most.
	sweepInterval = 30 * time.Second
	// retry is how long a cgroup or process that could not be found is not
	// looked for again.
	retry = 10 * time.Second
	// settle is how long the version 1 cgroups of a process are believed:
	// it can be moved without an event.
	settle = 10 * time.Second
	// patience is how long one lookup waits for a file system.
	patience = 50 * time.Millisecond
)

// Options are the settings of a Resolver.
type Options struct {
	// Root is the host; the Resolver uses it isolated from other users.
	Root *hostfs.Root
	// CgroupRoot is where the root of the version 2 hierarchy is mounted;
	// empty if there is none.
	CgroupRoot string
	// Capacity is how many cgroups are remembered; 0: DefaultCapacity.
	Capacity int
	Logger   *slog.Logger
	// Now is time.Now unless a test says otherwise.
	Now func() time.Time
}

// Resolver tells which container an event comes from. It is safe for
// concurrent use.
//
// An id of a cgroup is never given twice (kernfs counts generations), so what
// is remembered can be superfluous but not wrong: it is emptied by asking,
// every 30 s, whether each cgroup is still there. That loses nothing in a
// storm, as watching with inotify would, and leaves events that come late
// their container. New cgroups are watched for.
type Resolver struct {
	procfs *hostfs.Tree
	tree   cgroups
	legacy bool // hierarchies of version 1 are mounted
	log    *slog.Logger
	now    func() time.Time
	limit  int
	// patience is what a lookup waits for a file system.
	patience time.Duration

	mu    sync.Mutex // guards what follows
	files *files
	// Apart, so that processes cannot use up what new containers need.
	forCgroups, forProcesses budget

	host    *Identity // of what is not known
	byID    map[uint64]held
	byTGID  map[uint32]process // on hosts with version 1
	byPath  map[string]*placed // on hosts with version 1
	latest  time.Duration      // of the events seen
	counted Stats
}

// held is a cgroup. One that could not be found or asked about is tried again
// after until.
type held struct {
	identity *Identity
	until    time.Time
	path     string // for cgroups that cannot be opened by their id
}

type process struct {
	identity *Identity
	at       time.Duration
}

type placed struct {
	identity *Identity
	used     bool // since the last sweep
}

// Stats are counts since the start, and the size of the cache now.
type Stats struct {
	Entries, Capacity int
	// Evicted entries made place for others.
	Evicted uint64
	// Gone: the cgroup or the process had ended before it was looked for.
	// Budget: looking would have taken more time than is allowed.
	Gone, Budget uint64
}

// New returns a Resolver that knows nothing yet. Close it.
func New(o Options) *Resolver {
	now := o.Now
	if now == nil {
		now = time.Now
	}
	root := o.Root.Isolate()
	r := &Resolver{
		procfs: root.Procfs, tree: openCgroups(o.CgroupRoot), log: o.Logger, now: now,
		limit: o.Capacity, patience: patience, files: newFiles(root.Rootfs, now), forCgroups: budget{now: now}, forProcesses: budget{now: now},
		host: Identity{}.finish(), byID: map[uint64]held{}, byTGID: map[uint32]process{}, byPath: map[string]*placed{},
	}
	if r.limit <= 0 {
		r.limit = DefaultCapacity
	}
	// A process that is always there. Other than /proc/cgroups, this shows
	// what is mounted, not what could be.
	text, err := r.procfs.ReadValue(context.Background(), "1/cgroup")
	if err != nil {
		r.log.Debug("Cannot tell whether cgroup version 1 is in use", "err", err)
	}
	r.legacy = hasLegacy(text)
	return r
}

// Close lets go of the cgroup file system. Call it when Run has returned and
// nobody looks up any more.
func (r *Resolver) Close() error { return r.tree.close() }

// Fill learns every cgroup of version 2 that exists, until ctx ends.
func (r *Resolver) Fill(ctx context.Context) error {
	return r.tree.walk(ctx, r.limit, func(id uint64, path string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if _, ok := r.byID[id]; !ok {
			r.keep(id, r.hold(ctx, path))
		}
	})
}

// Lookup returns the identity of the process that an event is about, never
// nil. One that is remembered costs a map access. Otherwise files are read
// there and then, so that the first event of a container already has its
// name; no longer than 50 ms for each lookup and, on average, 0.5 % of the
// time for cgroups and as much for processes. What does not fit is without
// identity, and counted.
func (r *Resolver) Lookup(e *event.Event) *Identity {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.latest = max(r.latest, e.Monotonic)
	identity := r.host
	if e.CgroupID != 0 {
		known, ok := r.byID[e.CgroupID]
		if !ok || (!known.until.IsZero() && r.now().After(known.until)) {
			known = r.learn(e.CgroupID, e.TGID)
		}
		identity = known.identity
	}
	if r.legacy && identity.ContainerID == "" && e.TGID != 0 {
		identity = r.lookupLegacy(e, identity)
	}
	return identity
}

// learn finds the cgroup of an id, by the id itself if the kernel lets us,
// else by the process.
func (r *Resolver) learn(id uint64, tgid uint32) held {
	if !r.forCgroups.open() {
		r.counted.Budget++
		return held{identity: r.host}
	}
	defer r.forCgroups.charge(r.now())
	ctx, cancel := context.WithTimeout(context.Background(), r.patience)
	defer cancel()
	found := held{identity: r.host, until: r.now().Add(retry)}
	if path, ok := r.tree.path(id); ok {
		found = r.hold(ctx, path)
	} else if text, err := r.readCgroup(ctx, tgid); err == nil {
		_, path = parseProcCgroup(text)
		switch {
		case path == "":
		case r.tree.tree == nil:
			// It may have moved since the event, so this is not kept long.
			found.identity = r.hold(ctx, path).identity
		case r.tree.is(ctx, path, id):
			found = r.hold(ctx, path)
		}
	}
	if found.identity == r.host {
		r.counted.Gone++
	}
	r.keep(id, found)
	return found
}

// lookupLegacy asks the process itself: membership in version 1 has no id
// that the kernel's programs see. unified is the identity by version 2.
func (r *Resolver) lookupLegacy(e *event.Event, unified *Identity) *Identity {
	known, ok := r.byTGID[e.TGID]
	// An exec is what follows when a runtime has moved a process into place,
	// and what a new process with an old number does.
	if ok && e.Kind != event.Kind(abi.EventExec) && e.Monotonic-known.at < settle {
		return known.identity
	}
	if !r.forProcesses.open() {
		r.counted.Budget++
		return unified
	}
	defer r.forProcesses.charge(r.now())
	ctx, cancel := context.WithTimeout(context.Background(), r.patience)
	defer cancel()
	identity := unified
	if text, err := r.readCgroup(ctx, e.TGID); err != nil {
		r.counted.Gone++
	} else if best, now := parseProcCgroup(text); now != "" && unified.Path != "" && metric.Clean(now) != unified.Path {
		return unified // it has moved since the event
	} else if best != "" && best != "/" {
		identity = r.identifyPath(ctx, best)
	}
	if !ok && len(r.byTGID) >= r.limit {
		evict(r.byTGID)
		r.counted.Evicted++
	}
	r.byTGID[e.TGID] = process{identity, e.Monotonic}
	return identity
}

func (r *Resolver) readCgroup(ctx context.Context, tgid uint32) (string, error) {
	if tgid == 0 {
		return "", hostfs.ErrNotExist
	}
	return r.procfs.ReadValue(ctx, strconv.FormatUint(uint64(tgid), 10)+"/cgroup")
}

// identifyPath is identify for paths of version 1, which are remembered.
func (r *Resolver) identifyPath(ctx context.Context, path string) *Identity {
	if known := r.byPath[path]; known != nil {
		known.used = true
		return known.identity
	}
	identity, whole := r.identify(ctx, path)
	if !whole {
		return identity
	}
	if len(r.byPath) >= r.limit {
		evict(r.byPath)
		r.counted.Evicted++
	}
	r.byPath[path] = &placed{identity: identity, used: true}
	return identity
}

// hold is identify for paths of version 2.
func (r *Resolver) hold(ctx context.Context, path string) held {
	identity, whole := r.identify(ctx, path)
	h := held{identity: identity}
	if !whole {
		h.until = r.now().Add(pause)
	}
	if r.tree.mount == nil {
		h.path = path
	}
	return h
}

// identify says what a path means, and whether the files that say more could
// be asked.
func (r *Resolver) identify(ctx context.Context, path string) (identity *Identity, whole bool) {
	t := parsePath(path)
	whole = r.files.identify(ctx, &t)
	return t.finish(), whole
}

func (r *Resolver) keep(id uint64, h held) {
	if _, ok := r.byID[id]; !ok && len(r.byID) >= r.limit {
		evict(r.byID)
		r.counted.Evicted++
	}
	r.byID[id] = h
}

// evict drops any entry: one that is still in use comes back with its next
// event.
func evict[K comparable, V any](m map[K]V) {
	for k := range m {
		delete(m, k)
		return
	}
}

// Run learns cgroups when they are made and forgets those that have gone,
// until ctx ends.
func (r *Resolver) Run(ctx context.Context) {
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() {
		if err := r.watch(ctx); err != nil {
			r.log.Warn("Containers that end at once may have no name", "err", err)
		}
	})
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.sweep(ctx)
		}
	}
}

// sweep asks without the lock, so that lookups go on.
func (r *Resolver) sweep(ctx context.Context) {
	r.mu.Lock()
	paths := make(map[uint64]string, len(r.byID))
	for id, h := range r.byID {
		paths[id] = h.path
	}
	for tgid, p := range r.byTGID {
		if r.latest-p.at >= settle {
			delete(r.byTGID, tgid)
		}
	}
	for path, p := range r.byPath {
		if !p.used {
			delete(r.byPath, path)
		}
		p.used = false
	}
	r.mu.Unlock()

	var gone []uint64
	for id, path := range paths {
		if !r.tree.exists(ctx, id, path) {
			gone = append(gone, id)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range gone {
		delete(r.byID, id)
	}
}

// Stats are the counts now.
func (r *Resolver) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.counted
	s.Entries, s.Capacity = len(r.byID)+len(r.byTGID)+len(r.byPath), r.limit
	if r.legacy {
		s.Capacity *= 3
	}
	return s
}
