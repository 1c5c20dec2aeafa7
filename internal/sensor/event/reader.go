// SPDX-License-Identifier: Apache-2.0

package event

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
)

// pollInterval is how long an event may wait in a ring that is not filling:
// the programs wake the reader only when much is waiting.
const pollInterval = 50 * time.Millisecond

// Reader hands the events of a ring to a function. One goroutine runs it.
type Reader struct {
	ring *ringbuf.Reader
}

// NewReader opens a ring buffer map for reading.
func NewReader(ring *ebpf.Map) (*Reader, error) {
	r, err := ringbuf.NewReader(ring)
	if err != nil {
		return nil, fmt.Errorf("read the event ring: %w", err)
	}
	return &Reader{ring: r}, nil
}

// Run calls handle for each event and refuse for each record that is none,
// until Close.
func (r *Reader) Run(handle func(*Event), refuse func(error)) {
	var record ringbuf.Record
	var event Event
	for {
		r.ring.SetDeadline(time.Now().Add(pollInterval))
		err := r.ring.ReadInto(&record)
		switch {
		case errors.Is(err, ringbuf.ErrClosed):
			return
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, ringbuf.ErrFlushed):
			continue
		case err != nil:
			refuse(err)
			return
		}
		if err := event.Decode(record.RawSample); err != nil {
			refuse(err)
			continue
		}
		handle(&event)
	}
}

// Close ends Run.
func (r *Reader) Close() error { return r.ring.Close() }
