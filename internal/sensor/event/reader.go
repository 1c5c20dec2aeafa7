// SPDX-License-Identifier: Apache-2.0

package event

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	"security-exporter/internal/bpf/abi"
)

// How long an event may wait in a ring that is not filling: the programs wake
// the reader only when much is waiting. While nothing comes it looks less and
// less often, since looking is most of what an idle exporter costs.
const (
	pollInterval = 50 * time.Millisecond
	idleInterval = 200 * time.Millisecond
)

// Reader hands the events of one ring to a function. One goroutine runs it;
// its counts may be read at any time.
type Reader struct {
	ring      *ringbuf.Reader
	serious   bool
	delivered [probes]atomic.Uint64
	refused   [probes]atomic.Uint64
	caughtUp  chan struct{} // one answer to Flush
}

// probes is how many there are.
const probes = int(abi.ProbeCount)

// NewReader opens a ring for reading: "events", or "serious_events", whose
// events are marked as such.
func NewReader(ring *ebpf.Map, serious bool) (*Reader, error) {
	r, err := ringbuf.NewReader(ring)
	if err != nil {
		return nil, fmt.Errorf("read the event ring: %w", err)
	}
	return &Reader{ring: r, serious: serious, caughtUp: make(chan struct{}, 1)}, nil
}

// Run calls handle for each event and refuse for each record that is none,
// until Close. The event is reused: what handle keeps of it, it copies.
func (r *Reader) Run(handle func(*Event), refuse func(error)) {
	var record ringbuf.Record
	var event Event
	wait := pollInterval
	r.ring.SetDeadline(time.Now().Add(wait))
	for {
		err := r.ring.ReadInto(&record)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, ringbuf.ErrFlushed):
			if errors.Is(err, ringbuf.ErrFlushed) {
				select {
				case r.caughtUp <- struct{}{}:
				default:
				}
			}
			r.ring.SetDeadline(time.Now().Add(wait))
			wait = min(2*wait, idleInterval)
			continue
		case errors.Is(err, ringbuf.ErrClosed):
			return
		default:
			refuse(err)
			return
		}
		wait = pollInterval
		if err := event.Decode(record.RawSample); err != nil {
			from, _ := Probe(record.RawSample)
			r.refused[from].Add(1)
			refuse(err)
			continue
		}
		event.Serious = r.serious
		r.delivered[event.Probe].Add(1)
		handle(&event)
	}
}

// Serious says which ring this is.
func (r *Reader) Serious() bool { return r.serious }

// Delivered is how many events of a probe were handed over.
func (r *Reader) Delivered(probe int) uint64 { return r.delivered[probe].Load() }

// Refused is how many records of a probe were no events; those that do not
// tell their probe count for the first.
func (r *Reader) Refused(probe int) uint64 { return r.refused[probe].Load() }

// CatchUp makes Run look at the ring now, and waits until it has handed over
// what was there, at most for the time given. One goroutine may call it, and
// not from within Run.
func (r *Reader) CatchUp(patience time.Duration) {
	select {
	case <-r.caughtUp: // of an earlier call that gave up
	default:
	}
	if r.ring.Flush() != nil {
		return // closed
	}
	select {
	case <-r.caughtUp:
	case <-time.After(patience):
	}
}

// Close ends Run.
func (r *Reader) Close() error { return r.ring.Close() }
