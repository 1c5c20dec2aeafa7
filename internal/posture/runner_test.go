// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
)

// scrape returns the series of a Runner as "name{label values}" to value.
func scrape(t *testing.T, r *Runner) map[string]float64 {
	t.Helper()
	out := make(map[string]float64)
	for _, f := range gather(t, r) {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			name := strings.TrimPrefix(f.GetName(), "linux_security_")
			out[name+"{"+strings.Join(labels, ",")+"}"] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return out
}

func expect(t *testing.T, got map[string]float64, want map[string]float64) {
	t.Helper()
	for k, v := range want {
		if g, ok := got[k]; !ok || g != v {
			t.Errorf("%s is %v (present %v), want %v", k, g, ok, v)
		}
	}
}

func absent(t *testing.T, got map[string]float64, keys ...string) {
	t.Helper()
	for _, k := range keys {
		if _, ok := got[k]; ok {
			t.Errorf("%s is there", k)
		}
	}
}

func testRunner(t *testing.T, o Options, specs ...Spec) *Runner {
	t.Helper()
	o.LegacyNames = true
	r, err := newRunner(o, specs)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func thing(name string) *metric.Metric {
	return metric.New(metric.Gauge, "linux_security_"+name, "Thing of a test.", metric.Open("n", "Number."))
}

// Each way a run may end, and that none touches another collector.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var specs []Spec
		add := func(name string, err error) {
			m := thing(name)
			specs = append(specs, stub(name, func(_ context.Context, _ *Input, out *metric.Batch) error {
				out.Add(m, 1, "a")
				return err
			}, m))
		}
		add("fine", nil)
		add("nothing", fmt.Errorf("no such subsystem: %w", ErrNotApplicable))
		add("missing", fmt.Errorf("x: %w", hostfs.ErrNotExist))
		add("part", Partial(errors.Join(hostfs.ErrNotExist, hostfs.ErrPermission)))
		add("broken", hostfs.ErrPermission)
		specs = append(specs, stub("panics", func(context.Context, *Input, *metric.Batch) error {
			panic("on purpose")
		}))
		r := testRunner(t, Options{}, specs...)
		before := scrape(t, r)
		absent(t, before, "scrape_collector_success{fine}", "fine{a}")
		expect(t, before, map[string]float64{"collector_last_success_timestamp_seconds{fine}": 0, "series_dropped_total{fine}": 0})

		r.Start(t.Context())
		defer func() { _ = r.Close() }()
		<-r.Ready()
		now := float64(time.Now().Unix())
		got := scrape(t, r)
		expect(t, got, map[string]float64{
			"scrape_collector_success{fine}": 1, "fine{a}": 1, "collector_last_success_timestamp_seconds{fine}": now,
			"scrape_collector_success{nothing}": 1, "scrape_collector_success{missing}": 1,
			"scrape_collector_success{part}": 0, "part{a}": 1, "collector_last_success_timestamp_seconds{part}": 0,
			"scrape_collector_success{broken}": 0,
			"scrape_collector_success{panics}": 0,
		})
		absent(t, got, "nothing{a}", "missing{a}", "broken{a}")
	})
}

// A collector that hangs keeps its last series until they are stale, is never
// started twice, and comes back when it returns.
func TestHungCollector(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := thing("hangs")
		release := make(chan struct{})
		runs, inside := atomic.Int32{}, atomic.Int32{}
		hang := stub("hangs", func(_ context.Context, _ *Input, out *metric.Batch) error {
			if inside.Add(1) > 1 {
				t.Error("two runs at a time")
			}
			defer inside.Add(-1)
			if runs.Add(1) == 2 {
				<-release
			}
			out.Add(m, float64(runs.Load()), "a")
			return nil
		}, m)
		hang.Interval, hang.Deadline = 10*time.Second, time.Second
		other := stub("other", func(context.Context, *Input, *metric.Batch) error { return nil })
		other.Interval = 10 * time.Second
		r := testRunner(t, Options{}, hang, other)
		r.Start(t.Context())
		defer func() { _ = r.Close() }()
		time.Sleep(5 * time.Second)
		expect(t, scrape(t, r), map[string]float64{"scrape_collector_success{hangs}": 1, "hangs{a}": 1})
		time.Sleep(10 * time.Second)
		expect(t, scrape(t, r), map[string]float64{
			"scrape_collector_success{hangs}": 0, "hangs{a}": 1, "scrape_collector_success{other}": 1,
			"scrape_collector_duration_seconds{hangs}": 1.25,
		})
		time.Sleep(14 * time.Second)
		expect(t, scrape(t, r), map[string]float64{"hangs{a}": 1})
		time.Sleep(3 * time.Second)
		absent(t, scrape(t, r), "hangs{a}")
		if n := runs.Load(); n != 2 {
			t.Errorf("%d runs, want 2", n)
		}
		close(release)
		time.Sleep(12 * time.Second)
		expect(t, scrape(t, r), map[string]float64{"scrape_collector_success{hangs}": 1, "hangs{a}": 3})
	})
}

// A first run that hangs delays neither the others nor Ready for long.
func TestHungFirstRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		hang := stub("hangs", func(context.Context, *Input, *metric.Batch) error { <-release; return nil })
		hang.Deadline = time.Second
		r := testRunner(t, Options{}, hang)
		started := time.Now()
		r.Start(t.Context())
		<-r.Ready()
		if d := time.Since(started); d > 2*time.Second {
			t.Errorf("ready after %s", d)
		}
		_ = r.Close()
	})
}

func TestInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts []time.Time
		s := stub("often", func(context.Context, *Input, *metric.Batch) error {
			starts = append(starts, time.Now())
			return nil
		})
		s.Interval = 100 * time.Second
		r := testRunner(t, Options{}, s)
		r.Start(t.Context())
		time.Sleep(time.Hour)
		_ = r.Close()
		if n := len(starts); n < 33 || n > 41 {
			t.Errorf("%d runs in an hour", n)
		}
		for i := 1; i < len(starts); i++ {
			if d := starts[i].Sub(starts[i-1]); d < 90*time.Second || d > 110*time.Second {
				t.Errorf("pause of %s", d)
			}
		}
	})
}

func TestSeriesCap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := thing("many")
		s := stub("many", func(_ context.Context, _ *Input, out *metric.Batch) error {
			for i := range 12 {
				out.Add(m, 1, fmt.Sprint(i))
			}
			return nil
		}, m)
		s.MaxSeries, s.Interval = 10, time.Hour
		r := testRunner(t, Options{}, s)
		r.Start(t.Context())
		defer func() { _ = r.Close() }()
		<-r.Ready()
		got := scrape(t, r)
		expect(t, got, map[string]float64{"series_dropped_total{many}": 2, "many{9}": 1})
		absent(t, got, "many{10}")
	})
}

func TestLegacyNames(t *testing.T) {
	t.Parallel()
	old := metric.NewLegacy("linux_security_old", "Old name.")
	now := metric.New(metric.Gauge, "linux_security_new", "New name.")
	s := stub("both", func(_ context.Context, _ *Input, out *metric.Batch) error {
		out.Add(old, 1)
		out.Add(now, 1)
		return nil
	}, old, now)
	for _, legacy := range []bool{true, false} {
		r, err := newRunner(Options{LegacyNames: legacy}, []Spec{s})
		if err != nil {
			t.Fatal(err)
		}
		r.Start(t.Context())
		<-r.Ready()
		got := scrape(t, r)
		if _, ok := got["old{}"]; ok != legacy || got["new{}"] != 1 {
			t.Errorf("legacy %v: %v", legacy, got)
		}
		_ = r.Close()
	}
}

func TestEnabled(t *testing.T) {
	t.Parallel()
	nop := func(context.Context, *Input, *metric.Batch) error { return nil }
	off := stub("off", nop)
	off.Off = true
	specs := []Spec{stub("on", nop), stub("other", nop), off}
	chosen, err := choose(specs, map[string]bool{"off": true, "other": false})
	if err != nil || len(chosen) != 2 || chosen[0].Name != "on" || chosen[1].Name != "off" {
		t.Errorf("%v, %v", chosen, err)
	}
	if _, err := choose(specs, map[string]bool{"typo": true}); err == nil {
		t.Error("an unknown name was accepted")
	}
}

// The registry as a whole: names, helps and tables that fit together.
func TestRegistry(t *testing.T) {
	t.Parallel()
	owner := make(map[string]string)
	watched := make(map[string]bool)
	for _, s := range List() {
		if s.Name == "" || strings.Trim(s.Name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			t.Errorf("collector name %q", s.Name)
		}
		if !strings.HasSuffix(s.Help, ".") {
			t.Errorf("%s: help %q does not end in a dot", s.Name, s.Help)
		}
		if len(s.Metrics) == 0 {
			t.Errorf("%s declares no metric", s.Name)
		}
		for _, f := range s.Watch {
			if !strings.HasPrefix(f, "/") || strings.HasSuffix(f, "/") || strings.HasPrefix(f, "/proc/") || strings.HasPrefix(f, "/sys/") {
				t.Errorf("%s watches %q", s.Name, f)
			}
			watched[f] = true
		}
		for _, m := range s.Metrics {
			if !strings.HasPrefix(m.Name, "linux_security_") {
				t.Errorf("%s: metric %s lacks the prefix", s.Name, m.Name)
			}
			if prev, dup := owner[m.Name]; dup {
				t.Errorf("%s and %s both declare %s", prev, s.Name, m.Name)
			}
			owner[m.Name] = s.Name
		}
	}
	for file, as := range countedWith {
		if !watched[file] || !watched[as] || countedWith[as] != "" {
			t.Errorf("%s counts as %s, and one of them is not watched or counts as another", file, as)
		}
	}
	names := Names()
	slices.Sort(names)
	if len(slices.Compact(names)) != len(Names()) {
		t.Error("two collectors have one name")
	}
	if _, err := New(Options{}); err != nil {
		t.Error(err)
	}
	if err := prometheus.NewPedanticRegistry().Register(mustNew(t)); err != nil {
		t.Error(err)
	}
}

func mustNew(t *testing.T) *Runner {
	t.Helper()
	r, err := New(Options{LegacyNames: true})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Other orders hold from the next run on, which is at once for the collectors
// that they concern, and no series is missing in between.
func TestReload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		runs, names := map[string]*atomic.Int32{}, []string{"judge", "often", "other"}
		var specs []Spec
		for _, name := range names {
			m, n := thing(name), new(atomic.Int32)
			runs[name] = n
			s := stub(name, func(_ context.Context, in *Input, out *metric.Batch) error {
				n.Add(1)
				out.Add(m, float64(len(in.Settings.Waivers)*10+len(in.Settings.Sysctl)), "a")
				return nil
			}, m)
			s.Interval, s.Judges = time.Hour, name == "judge"
			specs = append(specs, s)
		}
		r := testRunner(t, Options{Intervals: map[string]time.Duration{"other": 2 * time.Hour}}, specs...)
		r.Start(t.Context())
		defer func() { _ = r.Close() }()
		<-r.Ready()
		ran := func(when string, want ...int32) {
			t.Helper()
			synctest.Wait()
			for i, name := range names {
				if got := runs[name].Load(); got != want[i] {
					t.Errorf("%s: %d runs of %s, want %d", when, got, name, want[i])
				}
			}
		}
		time.Sleep(30 * time.Minute)
		ran("before", 1, 1, 1)
		intervals := map[string]time.Duration{"other": 2 * time.Hour, "often": 10 * time.Second}
		r.Reload(intervals, nil, nil)
		expect(t, scrape(t, r), map[string]float64{"often{a}": 0})
		ran("an interval changed", 1, 2, 1)
		time.Sleep(105 * time.Second)
		often := runs["often"].Load()
		if often < 11 || often > 13 {
			t.Errorf("%d runs at the new interval", often)
		}
		r.Reload(intervals, map[string]string{"x": "why", "y": "why"}, map[string]string{"kernel.sysrq": "1"})
		ran("waivers changed", 2, often, 1)
		expect(t, scrape(t, r), map[string]float64{"judge{a}": 21, "other{a}": 0})
		r.Reload(intervals, map[string]string{"x": "why", "y": "why"}, map[string]string{"kernel.sysrq": "1"})
		ran("nothing changed", 2, often, 1)
		r.Reload(nil, map[string]string{"x": "why", "y": "why"}, nil)
		ran("all but the waivers back", 3, often+1, 2)
		expect(t, scrape(t, r), map[string]float64{"judge{a}": 20, "often{a}": 20, "other{a}": 20})
		time.Sleep(50 * time.Minute)
		ran("as it was", 3, often+1, 2)
	})
}
