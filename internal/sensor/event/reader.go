// SPDX-License-Identifier: Apache-2.0

package event

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

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
	ready     *os.File // the ring's map once more, for pause
	readiness syscall.RawConn
	sleeping  *ebpf.Map // nil: it never sleeps
	serious   bool
	delivered [probes]atomic.Uint64
	refused   [probes]atomic.Uint64
	asked     atomic.Bool   // by CatchUp, which Run has not seen yet
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
	r.SetDeadline(time.Unix(0, 0)) // it does not wait, pause does
	ready, err := pollable(ring.FD())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("wait for the event ring: %w", err), r.Close())
	}
	readiness, err := ready.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("wait for the event ring: %w", err), ready.Close(), r.Close())
	}
	return &Reader{
		ring: r, ready: ready, readiness: readiness, sleeping: sleeping, serious: serious, caughtUp: make(chan struct{}, 1),
	}, nil
}

// pollable hands a copy of a descriptor to Go's poller.
func pollable(fd int) (*os.File, error) {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(own, true); err != nil {
		return nil, errors.Join(err, unix.Close(own))
	}
	file := os.NewFile(uintptr(own), "event ring")
	if err := file.SetReadDeadline(time.Time{}); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// Run calls handle for each event and refuse for each record that is none,
// until Close. The event is reused: what handle keeps of it, it copies.
func (r *Reader) Run(handle func(*Event), refuse func(error)) {
	var record ringbuf.Record
	var event Event
	wait := pollInterval
	var busy, rested bool // something came since the last pause; that one was not cut short
	for {
		err := r.ring.ReadInto(&record)
		switch {
		case err == nil:
		case errors.Is(err, ringbuf.ErrFlushed):
			r.asked.Store(false)
			select {
			case r.caughtUp <- struct{}{}:
			default:
			}
			continue
		case errors.Is(err, os.ErrDeadlineExceeded):
			switch {
			case busy:
				wait = pollInterval
			case rested:
				wait = r.rest(wait)
			}
			busy = false
			rested = r.pause(wait)
			continue
		case errors.Is(err, ringbuf.ErrClosed):
			return
		default:
			refuse(err)
			return
		}
		busy = true
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
	if r.sleeping == nil || r.sleeping.Put(r.element(), uint32(1)) != nil {
		return pollInterval
	}
	return sleepInterval
}

// element is that of this reader in sleeping_readers.
func (r *Reader) element() uint32 {
	if r.serious {
		return uint32(abi.ReaderSerious)
	}
	return uint32(abi.ReaderFrequent)
}

// pause waits as long as given, then it returns true, or until a program wakes
// the reader or CatchUp or Close do. In Go's poller: a thread that waits in
// epoll_wait(2) of its own has the runtime wake others to take its place, each
// time; on a machine whose CPUs share a core, the host notices.
func (r *Reader) pause(within time.Duration) bool {
	until := time.Now().Add(within)
	_ = r.ready.SetReadDeadline(until) // fails when closed
	if r.asked.Load() {
		return false
	}
	looked := false
	_ = r.readiness.Read(func(uintptr) bool {
		if looked {
			return true
		}
		looked = true
		// What woke it before this call is forgotten by now.
		return within > pollInterval && r.isAwake()
	})
	return !time.Now().Before(until)
}

// isAwake: an event has come since the reader said that it sleeps.
func (r *Reader) isAwake() bool {
	var asleep uint32
	return r.sleeping.Lookup(r.element(), &asleep) != nil || asleep == 0
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
	r.asked.Store(true)
	if r.ring.Flush() != nil {
		return // closed
	}
	_ = r.ready.SetReadDeadline(time.Unix(0, 0))
	select {
	case <-r.caughtUp:
	case <-time.After(patience):
	}
}

// Close ends Run.
func (r *Reader) Close() error { return errors.Join(r.ring.Close(), r.ready.Close()) }
