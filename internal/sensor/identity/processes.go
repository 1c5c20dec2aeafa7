// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"strconv"
	"time"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
	"security-exporter/internal/sensor/event"
)

// settle is how long the version 1 cgroups of a process are believed: it can
// be moved without an event.
const settle = 10 * time.Second

// processes are what processes have said of their cgroups themselves, on hosts
// where version 1 has no hierarchy that the events tell an id of.
type processes struct {
	asked  bool // it is such a host
	byTGID map[uint32]process
	byPath map[string]*placed
	latest time.Duration // of the events seen
}

type process struct {
	identity *Identity
	at       time.Duration
}

type placed struct {
	identity *Identity
	used     bool // since the last sweep
}

// askProcess asks the process of an event. unified is the identity by
// version 2.
func (r *Resolver) askProcess(e *event.Event, unified *Identity) *Identity {
	p := &r.processes
	known, ok := p.byTGID[e.TGID]
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
	if !ok && len(p.byTGID) >= r.limit {
		evict(p.byTGID)
		r.counted.Evicted++
	}
	p.byTGID[e.TGID] = process{identity, e.Monotonic}
	return identity
}

func (r *Resolver) readCgroup(ctx context.Context, tgid uint32) (string, error) {
	if tgid == 0 {
		return "", hostfs.ErrNotExist
	}
	return r.procfs.ReadValue(ctx, strconv.FormatUint(uint64(tgid), 10)+"/cgroup")
}

// identifyPath is identify for paths that processes told, which are remembered.
func (r *Resolver) identifyPath(ctx context.Context, path string) *Identity {
	byPath := r.processes.byPath
	if known := byPath[path]; known != nil {
		known.used = true
		return known.identity
	}
	identity, whole := r.identify(ctx, path)
	if !whole {
		return identity
	}
	if len(byPath) >= r.limit {
		evict(byPath)
		r.counted.Evicted++
	}
	byPath[path] = &placed{identity: identity, used: true}
	return identity
}

// sweep forgets what has not been used for a while.
func (p *processes) sweep() {
	for tgid, known := range p.byTGID {
		if p.latest-known.at >= settle {
			delete(p.byTGID, tgid)
		}
	}
	for path, known := range p.byPath {
		if !known.used {
			delete(p.byPath, path)
		}
		known.used = false
	}
}
