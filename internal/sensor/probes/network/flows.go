// SPDX-License-Identifier: Apache-2.0

package network

import (
	"sync"
	"time"

	"github.com/cilium/ebpf"

	"security-exporter/internal/sensor/probe"
)

// directions has the size of abi.Directions, as a constant.
var directions [2]struct{}

// flowReading is what one walk of the flow table has found.
type flowReading struct {
	active  [len(directions)]uint64
	entries int    // with those that are over and not yet taken out
	evicted uint64 // since the start
}

// flowCount walks the flow table, at most once for a scrape that asks for
// several things. It is safe for concurrent use.
type flowCount struct {
	mu     sync.Mutex
	taken  time.Time
	last   flowReading
	warned bool
}

const sameScrape = 250 * time.Millisecond

func (f *flowCount) count(p *probe.Probe) flowReading {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Sub(f.taken) > sameScrape {
		f.taken = now
		if err := f.walk(p); err != nil && !f.warned {
			p.Log().Warn("active UDP flows are not known", "err", err)
			f.warned = true
		}
	}
	return f.last
}

// What the iterator writes for a flow that is not active.
const (
	flowOver = iota + byte(len(directions))
	flowTakenOut
)

// walk runs the iterator. What went into the table and neither came out nor
// is there was evicted. The balance is read first: what comes in during the
// walk may hide an eviction until the next one. The walk may miss an entry
// that moves, so a table that is less than half full has evicted nothing.
func (f *flowCount) walk(p *probe.Probe) error {
	table := p.Map("flows")
	if table == nil {
		return nil
	}
	balance, err := p.Counter("flow_balance", 0)
	if err != nil {
		return err
	}
	if balance == int64(f.last.evicted) {
		f.last = flowReading{evicted: f.last.evicted} // nothing to walk over
		return nil
	}
	states, err := p.Iterate("count_flows", 2*int64(table.MaxEntries()))
	if err != nil {
		return err
	}
	next := flowReading{evicted: f.last.evicted}
	gone := balance
	for _, state := range states {
		gone--
		if state == flowTakenOut {
			continue
		}
		next.entries++
		if state < flowOver {
			next.active[state]++
		}
	}
	mayEvict := balance-int64(next.evicted) >= int64(table.MaxEntries()/2)
	if mayEvict && gone > int64(next.evicted) {
		next.evicted = uint64(gone)
	}
	f.last = next
	return nil
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
