// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"security-exporter/internal/hostfs"
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
	// LegacyRoot is where the version 1 hierarchy is mounted that the events
	// have ids of, LegacyController one of its controllers; empty: none.
	LegacyRoot, LegacyController string
	// Capacity is how many cgroups are remembered; 0: DefaultCapacity.
	Capacity int
	Logger   *slog.Logger
	// Now is time.Now unless a test says otherwise.
	Now func() time.Time
}

// Resolver tells which container an event comes from. It is safe for
// concurrent use.
//
// An id of a cgroup is never given twice in its hierarchy (kernfs counts
// generations), so what is remembered can be superfluous but not wrong: it is
// emptied by asking, every 30 s, whether each cgroup is still there. That loses
// nothing in a storm, as watching with inotify would, and leaves events that
// come late their container. New cgroups are watched for.
type Resolver struct {
	procfs *hostfs.Tree
	// Containers have a cgroup in version 2, in version 1, or in both. Events
	// have the ids of the moment when they happened.
	unified, legacy hierarchy
	log             *slog.Logger
	now             func() time.Time
	limit           int
	// patience is what a lookup waits for a file system.
	patience time.Duration

	mu    sync.Mutex // guards what follows
	files *files
	// Apart, so that processes cannot use up what new containers need.
	forCgroups, forProcesses budget

	host      *Identity // of what is not known
	processes processes
	counted   Stats
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
		procfs: root.Procfs, log: o.Logger, now: now,
		unified: openHierarchy(o.CgroupRoot, ""), legacy: openHierarchy(o.LegacyRoot, o.LegacyController),
		limit: o.Capacity, patience: patience, files: newFiles(root.Rootfs, now), forCgroups: budget{now: now}, forProcesses: budget{now: now},
		host:      Identity{}.finish(),
		processes: processes{byTGID: map[uint32]process{}, byPath: map[string]*placed{}},
	}
	if r.limit <= 0 {
		r.limit = DefaultCapacity
	}
	if r.legacy.tree != nil {
		return r
	}
	// A process that is always there. Other than /proc/cgroups, this shows
	// what is mounted, not what could be.
	text, err := r.procfs.ReadValue(context.Background(), "1/cgroup")
	if err != nil {
		r.log.Debug("Cannot tell whether cgroup version 1 is in use", "err", err)
	}
	r.processes.asked = hasLegacy(text)
	return r
}

// Close lets go of the cgroup file system. Call it when Run has returned and
// nobody looks up any more.
func (r *Resolver) Close() error { return errors.Join(r.unified.close(), r.legacy.close()) }

// Fill learns every cgroup that exists, until ctx ends.
func (r *Resolver) Fill(ctx context.Context) error {
	var errs []error
	for _, h := range r.hierarchies() {
		errs = append(errs, h.walk(ctx, r.limit, func(id uint64, path string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if _, ok := h.byID[id]; !ok {
				r.keep(h, id, r.hold(ctx, h, path))
			}
		}))
	}
	return errors.Join(errs...)
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
	r.processes.latest = max(r.processes.latest, e.Monotonic)
	identity := r.host
	if e.CgroupID != 0 {
		identity = r.of(&r.unified, e.CgroupID, e.TGID)
	}
	switch {
	case identity.ContainerID != "":
	case e.LegacyCgroupID != 0 && r.legacy.tree != nil:
		return innermost(identity, r.of(&r.legacy, e.LegacyCgroupID, e.TGID))
	case r.processes.asked && e.TGID != 0:
		return r.askProcess(e, identity)
	}
	return identity
}

// innermost is which tells more of a process that is in no container by
// version 2: a container, then what is not the root. systemd keeps its units
// in version 2 where that is mounted.
func innermost(unified, legacy *Identity) *Identity {
	if legacy.ContainerID != "" || (legacy.Path != "" && (unified.Path == "" || unified.Path == "/")) {
		return legacy
	}
	return unified
}

// identify says what a path means, and whether the files that say more could
// be asked.
func (r *Resolver) identify(ctx context.Context, path string) (identity *Identity, whole bool) {
	t := parsePath(path)
	whole = r.files.identify(ctx, &t)
	return t.finish(), whole
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
	for _, h := range r.hierarchies() {
		watching.Go(func() {
			if err := r.watch(ctx, h); err != nil {
				r.log.Warn("Containers that end at once may have no name", "err", err)
			}
		})
	}
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

func (r *Resolver) sweep(ctx context.Context) {
	for _, h := range r.hierarchies() {
		r.sweepHierarchy(ctx, h)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.processes.sweep()
}

// Stats are the counts now.
func (r *Resolver) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.counted
	s.Entries = len(r.unified.byID) + len(r.legacy.byID) + len(r.processes.byTGID) + len(r.processes.byPath)
	s.Capacity = r.limit
	switch {
	case r.legacy.tree != nil:
		s.Capacity *= 2
	case r.processes.asked:
		s.Capacity *= 3
	}
	return s
}
