// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"time"
)

// hierarchy is what is known of the cgroups of one tree. Each tree numbers its
// own: the same id in two of them is two cgroups.
type hierarchy struct {
	cgroups
	// controller is one that is in it, of version 1; empty: version 2.
	controller string
	byID       map[uint64]held // guarded by the Resolver
}

// held is a cgroup. One that could not be found or asked about is tried again
// after until.
type held struct {
	identity *Identity
	until    time.Time
	path     string // for cgroups that cannot be opened by their id
}

func openHierarchy(root, controller string) hierarchy {
	return hierarchy{cgroups: openCgroups(root), controller: controller, byID: map[uint64]held{}}
}

// hierarchies are those that events have ids of.
func (r *Resolver) hierarchies() []*hierarchy { return []*hierarchy{&r.unified, &r.legacy} }

// of is whose a cgroup is; tgid is a process that was in it, 0: unknown.
func (r *Resolver) of(h *hierarchy, id uint64, tgid uint32) *Identity {
	known, ok := h.byID[id]
	if !ok || (!known.until.IsZero() && r.now().After(known.until)) {
		known = r.learn(h, id, tgid)
	}
	return known.identity
}

// learn finds the cgroup of an id, by the id itself if the kernel lets us,
// else by the process.
func (r *Resolver) learn(h *hierarchy, id uint64, tgid uint32) held {
	if !r.forCgroups.open() {
		r.counted.Budget++
		return held{identity: r.host}
	}
	defer r.forCgroups.charge(r.now())
	ctx, cancel := context.WithTimeout(context.Background(), r.patience)
	defer cancel()
	found := held{identity: r.host, until: r.now().Add(retry)}
	if path, ok := h.path(id); ok {
		found = r.hold(ctx, h, path)
	} else if text, err := r.readCgroup(ctx, tgid); err == nil {
		path = pathIn(text, h.controller)
		switch {
		case path == "":
		case h.tree == nil:
			// It may have moved since the event, so this is not kept long.
			found.identity = r.hold(ctx, h, path).identity
		case h.is(ctx, path, id):
			found = r.hold(ctx, h, path)
		}
	}
	if found.identity == r.host {
		r.counted.Gone++
	}
	r.keep(h, id, found)
	return found
}

// learnPath is learn for a cgroup of which the path is known.
func (r *Resolver) learnPath(ctx context.Context, h *hierarchy, path string) {
	ctx, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	info, err := h.tree.Stat(ctx, path)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if known, ok := h.byID[info.Ino]; ok && known.until.IsZero() {
		return
	}
	if !r.forCgroups.open() {
		return // its first event asks again
	}
	defer r.forCgroups.charge(r.now())
	r.keep(h, info.Ino, r.hold(ctx, h, path))
}

// hold is identify for what is remembered by its id.
func (r *Resolver) hold(ctx context.Context, h *hierarchy, path string) held {
	identity, whole := r.identify(ctx, path)
	out := held{identity: identity}
	if !whole {
		out.until = r.now().Add(pause)
	}
	if h.mount == nil {
		out.path = path
	}
	return out
}

func (r *Resolver) keep(h *hierarchy, id uint64, entry held) {
	if _, ok := h.byID[id]; !ok && len(h.byID) >= r.limit {
		evict(h.byID)
		r.counted.Evicted++
	}
	h.byID[id] = entry
}

// sweepHierarchy asks without the lock, so that lookups go on.
func (r *Resolver) sweepHierarchy(ctx context.Context, h *hierarchy) {
	r.mu.Lock()
	paths := make(map[uint64]string, len(h.byID))
	for id, known := range h.byID {
		paths[id] = known.path
	}
	r.mu.Unlock()
	var gone []uint64
	for id, path := range paths {
		if !h.exists(ctx, id, path) {
			gone = append(gone, id)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range gone {
		delete(h.byID, id)
	}
}
