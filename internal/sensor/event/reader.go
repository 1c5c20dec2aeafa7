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

// How long an event may wait in a ring that is not filling: while events come,
// the programs wake the reader only when much is waiting. When none came for
// that long it says that it sleeps, and the next event wakes it at once; an idle
// exporter would spend most of its time looking. It looks once more soon, for
// an event that was on its way while it said so, and then rarely.
const (
	pollInterval  = 50 * time.Millisecond
	sleepInterval = 500 * time.Millisecond
	longInterval  = 30 * time.Second
)

// Reader hands the events of one ring to a function. One goroutine runs it;
// its counts may be read at any time.
type Reader struct {
	ring      *ringbuf.Reader
	sleeping  *ebpf.Map // nil: it never sleeps
	serious   bool
	delivered [probes]atomic.Uint64
	refused   [probes]atomic.Uint64
	caughtUp  chan struct{} // one answer to Flush
}

// probes is how many there are.
const probes = int(abi.ProbeCount)

// NewReader opens a ring for reading: "events", or "serious_events", whose
// events are marked as such. Sleeping is the map "sleeping_readers".
func NewReader(ring, sleeping *ebpf.Map, serious bool) (*Reader, error) {
	r, err := ringbuf.NewReader(ring)
	if err != nil {
		return nil, fmt.Errorf("read the event ring: %w", err)
	}
	return &Reader{ring: r, sleeping: sleeping, serious: serious, caughtUp: make(chan struct{}, 1)}, nil
}

// Run calls handle for each event and refuse for each record that is none,
// until Close. The event is reused: what handle keeps of it, it copies.
func (r *Reader) Run(handle func(*Event), refuse func(error)) {
	var record ringbuf.Record
	var event Event
	var wait time.Duration
	var busy bool // something came since the last deadline
	look := func(within time.Duration) {
		wait = within
		r.ring.SetDeadline(time.Now().Add(within))
	}
	look(pollInterval)
	for {
		err := r.ring.ReadInto(&record)
		switch {
		case err == nil:
		case errors.Is(err, ringbuf.ErrFlushed):
			select {
			case r.caughtUp <- struct{}{}:
			default:
			}
			continue
		case errors.Is(err, os.ErrDeadlineExceeded):
			if busy {
				look(pollInterval)
			} else {
				look(r.rest(wait))
			}
			busy = false
			continue
		case errors.Is(err, ringbuf.ErrClosed):
			return
		default:
			refuse(err)
			return
		}
		busy = true
		if wait != pollInterval { // it slept
			look(pollInterval)
		}
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

// rest returns how long to wait after nothing came for as long as given.
func (r *Reader) rest(waited time.Duration) time.Duration {
	if waited >= sleepInterval {
		return longInterval
	}
	which := uint32(abi.ReaderFrequent)
	if r.serious {
		which = uint32(abi.ReaderSerious)
	}
	if r.sleeping == nil || r.sleeping.Put(which, uint32(1)) != nil {
		return pollInterval
	}
	return sleepInterval
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
