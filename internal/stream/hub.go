// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"security-exporter/internal/metric"
	"security-exporter/internal/sensor/event"
	"security-exporter/internal/sensor/identity"
)

// The ways out, as the label output has them.
const (
	OutputStdout = "stdout"
	OutputFile   = "file"
	OutputAPI    = "api"
)

var outputs = []string{OutputStdout, OutputFile, OutputAPI}

// DefaultQueue is how many bytes wait for one reader, at most.
const DefaultQueue = 512 << 10

// linger is how long the first line that waits lets others gather: a write for
// each line would cost more than all the rest. A quarter of the queue is taken
// at once.
const linger = 20 * time.Millisecond

// Hub hands events to subscribers. All methods are safe for concurrent use.
type Hub struct {
	// subscribers is replaced, never changed, so that Publish reads it freely.
	subscribers atomic.Pointer[[]*Subscriber]
	mu          sync.Mutex // guards changes to subscribers

	encoding sync.Mutex // guards what follows: the rings have a reader each
	encoder  *Encoder
	line     []byte

	dropped   [3]atomic.Uint64 // by index in outputs
	droppedBy *metric.Metric
}

// NewHub returns a hub without subscribers.
func NewHub() *Hub {
	h := &Hub{encoder: NewEncoder(), droppedBy: droppedMetric()}
	h.subscribers.Store(new([]*Subscriber))
	return h
}

func droppedMetric() *metric.Metric {
	return metric.New(metric.Counter, "security_ebpf_events_dropped_total",
		"Detail events that a way out could not take in time; clients of the API are counted together.",
		metric.Closed("output", outputs...))
}

// Metrics is the table of this package, for the documentation.
func Metrics() []*metric.Metric { return []*metric.Metric{droppedMetric()} }

// Describe implements prometheus.Collector.
func (h *Hub) Describe(ch chan<- *prometheus.Desc) { ch <- h.droppedBy.Desc() }

// Collect implements prometheus.Collector.
func (h *Hub) Collect(ch chan<- prometheus.Metric) {
	b := metric.NewBatch(0)
	for i, name := range outputs {
		b.Add(h.droppedBy, float64(h.dropped[i].Load()), name)
	}
	b.Collect(ch)
}

// Active says whether anyone listens. A producer may skip what it does for
// the stream alone when nobody does.
func (h *Hub) Active() bool { return len(*h.subscribers.Load()) > 0 }

// Publish hands an event to everyone whose filter wants it. It never waits
// for a reader, keeps nothing of the event, and costs next to nothing when
// nobody wants it. id may be nil.
func (h *Hub) Publish(ev *event.Event, id *identity.Identity) {
	subscribers := *h.subscribers.Load()
	wanted := slices.IndexFunc(subscribers, func(s *Subscriber) bool { return s.filter.Match(ev) })
	if wanted < 0 {
		return
	}
	h.encoding.Lock()
	defer h.encoding.Unlock()
	h.line = h.encoder.Append(h.line[:0], ev, id)
	for _, s := range subscribers[wanted:] {
		if s.filter.Match(ev) {
			s.offer(h.line, uint64(ev.Weight))
		}
	}
}

// Subscribe adds a reader. queue is how many bytes may wait for it; output is
// one of the Output names and says where its losses are counted.
func (h *Hub) Subscribe(output string, filter Filter, queue int) *Subscriber {
	s := &Subscriber{
		hub: h, filter: filter, limit: queue,
		dropped: &h.dropped[slices.Index(outputs, output)],
		wake:    make(chan struct{}, 1),
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	list := append(slices.Clone(*h.subscribers.Load()), s)
	h.subscribers.Store(&list)
	return s
}

// Subscriber is one reader of the stream. One goroutine calls Next.
type Subscriber struct {
	hub     *Hub
	filter  Filter
	limit   int
	dropped *atomic.Uint64
	wake    chan struct{} // something waits in queue

	mu    sync.Mutex // guards what follows
	queue []byte     // whole lines
	// lost counts lines and lostEvents their weights since the last Next.
	lost, lostEvents uint64

	batch []byte // what Next returned last
	timer *time.Timer
}

// offer appends a line to the queue. Once one is lost all are, until the
// reader comes back, so that the gap is in one place.
func (s *Subscriber) offer(line []byte, weight uint64) {
	s.mu.Lock()
	if s.lost > 0 || len(s.queue)+len(line) > s.limit {
		s.lost++
		s.lostEvents += weight
		s.mu.Unlock()
		s.dropped.Add(1)
		s.notify() // a line may be too long for an empty queue
		return
	}
	before, enough := len(s.queue), s.limit/4
	s.queue = append(s.queue, line...)
	after := len(s.queue)
	s.mu.Unlock()
	if before == 0 || (before < enough && after >= enough) {
		s.notify()
	}
}

func (s *Subscriber) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Next waits for events and returns all that wait, as whole lines in order; a
// record of the kind lost is the last one if some were lost after them. The
// slice is valid until the next call. It fails when ctx ends.
func (s *Subscriber) Next(ctx context.Context) ([]byte, error) {
	for lingered := false; ; {
		s.mu.Lock()
		waits := len(s.queue) > 0 || s.lost > 0
		if waits && (lingered || s.lost > 0 || len(s.queue) >= s.limit/4) {
			batch := s.take()
			s.mu.Unlock()
			return batch, nil
		}
		s.mu.Unlock()
		if waits {
			s.linger(ctx)
			lingered = true
			continue
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.wake:
		}
	}
}

// linger waits until more is there, or it is time.
func (s *Subscriber) linger(ctx context.Context) {
	select { // what was waiting is known
	case <-s.wake:
	default:
	}
	if s.timer == nil {
		s.timer = time.NewTimer(linger)
	} else {
		s.timer.Reset(linger)
	}
	defer s.timer.Stop()
	select {
	case <-ctx.Done():
	case <-s.wake:
	case <-s.timer.C:
	}
}

// take returns what waits, as Next does.
func (s *Subscriber) take() []byte {
	s.batch, s.queue = s.queue, s.batch[:0]
	if s.lost > 0 {
		s.batch = appendLost(s.batch, time.Now(), s.lost, s.lostEvents)
		s.lost, s.lostEvents = 0, 0
	}
	return s.batch
}

// Close removes the reader from its hub. What still waits is not counted as
// lost: the reader has left.
func (s *Subscriber) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	list := slices.DeleteFunc(slices.Clone(*s.hub.subscribers.Load()), func(o *Subscriber) bool { return o == s })
	s.hub.subscribers.Store(&list)
}
