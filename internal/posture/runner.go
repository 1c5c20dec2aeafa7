// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
)

// Runner runs the collectors and is the prometheus.Collector of what they
// found. Its methods are safe for concurrent use.
type Runner struct {
	log    *slog.Logger
	jobs   []*job
	self   *self
	table  []*metric.Metric
	watch  *watcher
	cancel context.CancelFunc
	wg     sync.WaitGroup
	ready  chan struct{}
	// patience ends when scrapes no longer wait for ready.
	patience time.Time
}

// New prepares a Runner. It fails on a collector name that does not exist.
func New(o Options) (*Runner, error) {
	return newRunner(o, collectors())
}

func newRunner(o Options, specs []Spec) (*Runner, error) {
	if o.Root == nil {
		o.Root = hostfs.New(hostfs.Paths{})
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	specs, err := choose(specs, o.Enabled)
	if err != nil {
		return nil, err
	}
	r := &Runner{log: o.Log, self: newSelf(specs), ready: make(chan struct{}), patience: time.Now().Add(o.FirstScrape)}
	byFile := make(map[string][]func())
	for _, s := range specs {
		s.defaults()
		j := newJob(s, o)
		r.jobs = append(r.jobs, j)
		for _, f := range s.Watch {
			byFile[countedAs(f)] = append(byFile[countedAs(f)], j.poke)
		}
		r.table = append(r.table, s.Metrics...)
	}
	r.table = append(r.table, r.self.table()...)
	if !o.LegacyNames {
		r.table = withoutLegacy(r.table)
	}
	r.watch = newWatcher(o.Root.Isolate(), o.Log, r.self.files, byFile)
	return r, nil
}

func choose(specs []Spec, enabled map[string]bool) ([]Spec, error) {
	var out []Spec
	known := make(map[string]bool)
	for _, s := range specs {
		known[s.Name] = true
		on, asked := enabled[s.Name]
		if !asked {
			on = !s.Off
		}
		if on {
			out = append(out, s)
		}
	}
	for name := range enabled {
		if !known[name] {
			return nil, fmt.Errorf("no collector is called %q: see --help for the names", name)
		}
	}
	return out, nil
}

func withoutLegacy(table []*metric.Metric) []*metric.Metric {
	var out []*metric.Metric
	for _, m := range table {
		if !m.Legacy {
			out = append(out, m)
		}
	}
	return out
}

// patienceToArm is how long the first runs wait for the watches.
const patienceToArm = 300 * time.Millisecond

// startWatch returns when changes are seen from now on. Where a directory does
// not answer it returns before; all collectors run once more when it is so.
func (r *Runner) startWatch(ctx context.Context) {
	armed := make(chan struct{})
	r.wg.Go(func() {
		r.watch.arm(ctx)
		close(armed)
		r.watch.run(ctx)
	})
	select {
	case <-armed:
		return
	case <-time.After(patienceToArm):
	}
	r.wg.Go(func() {
		select {
		case <-armed:
			for _, j := range r.jobs {
				j.poke()
			}
		case <-ctx.Done():
		}
	})
}

// Start begins to watch the files and runs every collector for the first time
// at once. It returns without waiting for them; they run until ctx ends or
// Close is called. Call it once.
func (r *Runner) Start(ctx context.Context) {
	ctx, r.cancel = context.WithCancel(ctx)
	if len(r.self.files) > 0 {
		r.startWatch(ctx)
	}
	var first sync.WaitGroup
	for _, j := range r.jobs {
		first.Add(1)
		r.wg.Go(func() { j.loop(ctx, sync.OnceFunc(first.Done)) })
	}
	r.wg.Go(func() {
		first.Wait()
		close(r.ready)
	})
}

// Reload puts other intervals, waivers and expected kernel parameters in force.
// A collector that they concern runs with them at once, or when the run that
// is under way has ended.
func (r *Runner) Reload(intervals map[string]time.Duration, waivers, sysctl map[string]string) {
	for _, j := range r.jobs {
		settings := j.orders.Load().settings
		settings.Waivers, settings.Sysctl = waivers, sysctl
		j.obey(j.ordersFor(intervals, settings))
	}
}

// Ready is closed when the first run of every collector has ended or has been
// given up.
func (r *Runner) Ready() <-chan struct{} { return r.ready }

// Close stops the collectors. A run that hangs is left behind. There is no
// error that it could return.
func (r *Runner) Close() error {
	if r.cancel != nil {
		r.cancel()
		r.wg.Wait()
	}
	return nil
}

// Describe sends the descriptor of every metric.
func (r *Runner) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range r.table {
		ch <- m.Desc()
	}
}

// Collect sends the last snapshots. It reads memory only, and waits for
// nothing but the first snapshots within Options.FirstScrape.
func (r *Runner) Collect(ch chan<- prometheus.Metric) {
	if left := time.Until(r.patience); left > 0 {
		select {
		case <-r.ready:
		case <-time.After(left):
		}
	}
	own := metric.NewBatch(0)
	now := time.Now()
	for _, j := range r.jobs {
		s := j.state.Load()
		if s.snapshot != nil && now.Sub(s.taken) <= j.staleAfter(s) {
			s.snapshot.Collect(ch)
		}
		if s.ran {
			own.Bool(r.self.success, s.ok, j.spec.Name)
			own.Add(r.self.duration, s.duration.Seconds(), j.spec.Name)
		}
		if !s.lastSuccess.IsZero() {
			own.Add(r.self.lastSuccess, float64(s.lastSuccess.UnixMilli())/1e3, j.spec.Name)
		}
		own.Add(r.self.dropped, float64(s.dropped), j.spec.Name)
	}
	for _, f := range r.self.counted {
		own.Add(r.self.changes, float64(r.watch.count(f)), f)
	}
	own.Fill(r.self.table())
	own.Collect(ch)
}
