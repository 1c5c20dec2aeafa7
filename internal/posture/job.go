// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"runtime/debug"
	"sync/atomic"
	"time"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
)

const (
	// grace is how long after its deadline a run may still hand in.
	grace = 250 * time.Millisecond
	// A collector that is run again by changes rests for this many times the
	// length of its last run, so that a storm of changes costs at most a
	// tenth of a core.
	restFactor = 9
	// jitter is the largest part of an interval by which a run is early or
	// late, so that hosts and collectors spread.
	jitter = 0.1
)

// job is one collector at work. Its loop is the only writer of state.
type job struct {
	spec       Spec
	in         *Input
	log        *slog.Logger
	skipLegacy bool
	wake       chan struct{}
	// orders are in force from the next run on; changed asks for it.
	orders  atomic.Pointer[orders]
	changed chan struct{}
	current *orders // of the last run
	state   atomic.Pointer[state]
	ended   time.Time
}

// orders are what the configuration says. They are replaced, never changed.
type orders struct {
	interval time.Duration
	settings Settings
}

// state is what a scrape sees. It is replaced, never changed.
type state struct {
	snapshot    *metric.Batch
	taken       time.Time
	interval    time.Duration // when it was taken
	ran, ok     bool
	duration    time.Duration
	lastSuccess time.Time
	dropped     uint64
	problem     string
}

type outcome struct {
	batch *metric.Batch
	err   error
}

func newJob(s Spec, o Options) *job {
	log := o.Log.With("collector", s.Name)
	j := &job{
		spec:       s,
		in:         &Input{Root: o.Root.Isolate(), Log: log, Now: time.Now},
		log:        log,
		skipLegacy: !o.LegacyNames,
		wake:       make(chan struct{}, 1),
		changed:    make(chan struct{}, 1),
	}
	j.orders.Store(j.ordersFor(o.Intervals, o.Settings))
	j.state.Store(&state{})
	return j
}

// poke asks for a run soon. It never blocks.
func (j *job) poke() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

func (j *job) ordersFor(intervals map[string]time.Duration, s Settings) *orders {
	return &orders{interval: cmp.Or(intervals[j.spec.Name], j.spec.Interval), settings: s}
}

// obey puts other orders in force, and has the collector run at once if they
// concern it.
func (j *job) obey(next *orders) {
	old := j.orders.Swap(next)
	judged := maps.Equal(old.settings.Waivers, next.settings.Waivers) && maps.Equal(old.settings.Sysctl, next.settings.Sysctl)
	if old.interval == next.interval && (judged || !j.spec.Judges) {
		return
	}
	select {
	case j.changed <- struct{}{}:
	default:
	}
}

func (j *job) staleAfter(s *state) time.Duration { return 3*s.interval + j.spec.Deadline }

// loop runs the collector until ctx ends. first is called when the first run
// has ended or has been given up.
func (j *job) loop(ctx context.Context, first func()) {
	defer first()
	for ctx.Err() == nil {
		j.current = j.orders.Load()
		j.in.Settings = j.current.settings
		j.run(ctx, first)
		spread := 1 + jitter*(2*rand.Float64()-1)
		timer := time.NewTimer(time.Duration(float64(j.current.interval) * spread))
		select {
		case <-ctx.Done():
		case <-timer.C:
			j.in.Changed = false
		case <-j.changed:
			j.in.Changed = false
		case <-j.wake:
			j.rest(ctx)
			j.in.Changed = true
		}
		timer.Stop()
	}
}

// rest waits before a run that a change asked for. Changes that come
// meanwhile are covered by that run.
func (j *job) rest(ctx context.Context) {
	timer := time.NewTimer(restFactor*j.state.Load().duration - time.Since(j.ended))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-j.changed:
	case <-timer.C:
	}
	select {
	case <-j.wake:
	default:
	}
}

// run is one run. A run that does not return is recorded as failed, and then
// waited for, so that there is never a second one.
func (j *job) run(ctx context.Context, first func()) {
	defer first()
	runCtx, cancel := context.WithTimeout(ctx, j.spec.Deadline)
	defer cancel()
	started := time.Now()
	done := make(chan outcome, 1)
	go func() { done <- j.collect(runCtx) }()

	select {
	case o := <-done:
		j.record(ctx, o, started)
		return
	case <-runCtx.Done():
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case o := <-done:
		j.record(ctx, o, started)
		return
	case <-timer.C:
	}
	j.record(ctx, outcome{err: fmt.Errorf("no result after %s: given up, and not started again before it returns", j.spec.Deadline)}, started)
	first()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// collect is the run itself; a panic is its error.
func (j *job) collect(ctx context.Context) (o outcome) {
	o.batch = metric.NewBatch(j.spec.MaxSeries)
	o.batch.SkipLegacy = j.skipLegacy
	defer func() {
		if p := recover(); p != nil {
			o.err = fmt.Errorf("panic: %v", p)
			j.log.Error("collector panicked", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	o.err = j.spec.Collect(ctx, j.in, o.batch)
	return o
}

// record makes an outcome what scrapes see.
func (j *job) record(ctx context.Context, o outcome, started time.Time) {
	j.ended = time.Now()
	if ctx.Err() != nil {
		return
	}
	old := j.state.Load()
	s := *old
	s.ran, s.ok, s.problem = true, false, ""
	s.duration = j.ended.Sub(started)
	complete := false
	switch partial := (*partialError)(nil); {
	case o.err == nil:
		s.ok, complete = true, true
	case errors.As(o.err, &partial):
		complete = true
	case errors.Is(o.err, ErrNotApplicable), errors.Is(o.err, hostfs.ErrNotExist):
		s.ok, complete = true, true
		o.batch = metric.NewBatch(0)
	}
	if complete {
		s.snapshot, s.taken, s.interval = o.batch, j.ended, j.current.interval
		s.dropped += uint64(o.batch.Dropped())
	}
	if s.ok {
		s.lastSuccess = j.ended
	} else {
		s.problem = o.err.Error()
	}
	j.state.Store(&s)
	j.report(old, &s, o.err)
}

// report logs a change of state once, not every run.
func (j *job) report(old, now *state, err error) {
	switch {
	case !now.ok && old.problem != now.problem:
		j.log.Warn("collector failed", "error", now.problem)
	case now.ok && !old.ok && old.ran:
		j.log.Info("collector works again")
	case now.ok && !old.ran && err != nil:
		j.log.Debug("collector is not applicable", "reason", err)
	}
}
