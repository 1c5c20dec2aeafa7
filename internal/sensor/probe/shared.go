// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// sharedNames are the maps that all objects have in common. The first object
// that loads creates them; the others are handed the same.
var sharedNames = []string{
	"processes", "process_slots", "threads", "map_evictions",
	"events", "serious_events", "sleeping_readers", "event_budget",
	"events_total", "events_serious_total", "events_sampled_total", "events_lost_total",
}

// Shared holds the maps that all probes use together. It is filled by one
// goroutine, during start.
type Shared struct {
	maps map[string]*ebpf.Map
}

// NewShared returns an empty set. Close it after the probes.
func NewShared() *Shared { return &Shared{maps: map[string]*ebpf.Map{}} }

// Map returns a shared map, or nil if no object with it has loaded.
func (s *Shared) Map(name string) *ebpf.Map { return s.maps[name] }

func (s *Shared) present(object *ebpf.CollectionSpec) map[string]*ebpf.Map {
	out := map[string]*ebpf.Map{}
	for name, m := range s.maps {
		if _, ok := object.Maps[name]; ok {
			out[name] = m
		}
	}
	return out
}

// keep remembers the shared ones among the maps that an object created.
func (s *Shared) keep(created map[string]*ebpf.Map) error {
	for _, name := range sharedNames {
		if s.maps[name] != nil || created[name] == nil {
			continue
		}
		clone, err := created[name].Clone()
		if err != nil {
			return fmt.Errorf("share map %s: %w", name, err)
		}
		s.maps[name] = clone
	}
	return nil
}

// Close releases the maps.
func (s *Shared) Close() error {
	var errs []error
	for _, m := range s.maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}
