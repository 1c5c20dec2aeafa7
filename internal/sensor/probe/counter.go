// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// Counter sums one cell of a counter map over the CPUs. Signed, since a gauge
// kept by a counter goes up on one CPU and down on another.
func (p *Probe) Counter(name string, index uint32) (int64, error) {
	return sumCell(p.maps[name], name, index)
}

// Counter is Probe.Counter for the shared counters.
func (s *Shared) Counter(name string, index uint32) (int64, error) {
	return sumCell(s.maps[name], name, index)
}

func sumCell(counter *ebpf.Map, name string, index uint32) (int64, error) {
	if counter == nil {
		return 0, fmt.Errorf("there is no counter %s", name)
	}
	var each []uint64
	if err := counter.Lookup(index, &each); err != nil {
		return 0, fmt.Errorf("read counter %s: %w", name, err)
	}
	var sum int64
	for _, n := range each {
		sum += int64(n)
	}
	return sum, nil
}
