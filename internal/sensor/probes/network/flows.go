// SPDX-License-Identifier: Apache-2.0

package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"security-exporter/internal/sensor/probe"
)

// sweepReading is what the last sweep of the flow table has found.
type sweepReading struct {
	entries int    // with those that are over and not yet taken out
	evicted uint64 // since the start
}

// sweeper takes flows that are long over out of the table. It is safe for
// concurrent use.
type sweeper struct {
	mu   sync.Mutex
	last sweepReading
}

func (s *sweeper) reading() sweepReading {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// sweep runs the iterator. What went into the table and neither came out nor
// is there was evicted. The balance is read first: what comes in during the
// walk may hide an eviction until the next one. The walk may miss an entry
// that moves, so a table that is less than half full has evicted nothing.
func (s *sweeper) sweep(p *probe.Probe) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	table := p.Map("flows")
	if table == nil {
		return nil
	}
	balance, err := p.Counter("flow_balance", 0)
	if err != nil {
		return err
	}
	if balance == int64(s.last.evicted) {
		s.last.entries = 0 // nothing to walk over
		return nil
	}
	stay, takenOut, err := sweepFlows(p, 2*int64(table.MaxEntries()))
	if err != nil {
		return err
	}
	next := sweepReading{entries: int(stay), evicted: s.last.evicted}
	gone := balance - stay - takenOut
	mayEvict := balance-int64(next.evicted) >= int64(table.MaxEntries()/2)
	if mayEvict && gone > int64(next.evicted) {
		next.evicted = uint64(gone)
	}
	s.last = next
	return nil
}

// sweepFlows walks over at most limit flows.
func sweepFlows(p *probe.Probe, limit int64) (stay, takenOut int64, err error) {
	name := "walk_flows"
	if !p.Runs(name) {
		name = "sweep_flows"
	}
	const size = 16 // struct flow_walk
	walks, err := p.Iterate(name, limit*size)
	if err != nil {
		return 0, 0, err
	}
	for ; len(walks) >= size; walks = walks[size:] {
		stay += int64(binary.NativeEndian.Uint64(walks))
		takenOut += int64(binary.NativeEndian.Uint64(walks[8:]))
	}
	return stay, takenOut, nil
}

// The ring of flows by the moment of their last datagram (flows.h).
const (
	flowUnitShift = 28
	flowUnits     = 512
	flowWindow    = 224
)

// directions has the size of abi.Directions, as a constant.
var directions [2]struct{}

// activeFlows adds up the flows with a datagram in the last 60 s, by
// direction. now is the time since boot, CLOCK_MONOTONIC; a unit after the
// last one that the programs cleared has seen no datagram.
func activeFlows(p *probe.Probe, now time.Duration) (active [len(directions)]int64, err error) {
	ring, cleared := p.Map("flow_ring"), p.Variable("flow_cleared")
	if ring == nil || cleared == nil {
		return active, errors.New("there is no flow ring")
	}
	var last uint64
	if err := cleared.Get(&last); err != nil {
		return active, fmt.Errorf("get flow_cleared: %w", err)
	}
	var counts [flowUnits][len(directions)]int64
	if err := ring.Lookup(uint32(0), &counts); err != nil {
		return active, fmt.Errorf("read the flow ring: %w", err)
	}
	unit := uint64(now) >> flowUnitShift
	for back := uint64(0); back < flowWindow && back <= unit; back++ {
		if unit-back > last {
			continue
		}
		for direction, n := range counts[(unit-back)%flowUnits] {
			active[direction] += n
		}
	}
	for direction := range active {
		active[direction] = max(0, active[direction])
	}
	return active, nil
}

// monotonic is the clock of the programs.
func monotonic() time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // cannot fail
	return time.Duration(now.Nano())
}

// countKeys is the number of entries of a small table.
func countKeys(m *ebpf.Map) int {
	var n int
	var key, value []byte
	for entries := m.Iterate(); entries.Next(&key, &value); {
		n++
	}
	return n
}
