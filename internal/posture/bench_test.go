// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
	"security-exporter/internal/testkit"
)

// BenchmarkRun is one run of all collectors on 1,000 processes with 10,000
// descriptors and 400 listeners: cpu-ms is its CPU time, rest-% what it makes
// of a core at the default intervals.
func BenchmarkRun(b *testing.B) {
	testkit.Crowd(b, 1000, 400)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // as the program does
	specs := collectors()
	inputs := make([]*Input, len(specs))
	for i := range specs {
		specs[i].defaults()
		inputs[i] = &Input{Root: hostfs.New(hostfs.Paths{}), Log: slog.New(slog.DiscardHandler), Now: time.Now,
			Settings: Settings{ServicesEnabled: true}}
	}
	cost := make([]float64, len(specs))
	run := func() (series int) {
		for i, s := range specs {
			batch := metric.NewBatch(s.MaxSeries)
			before := cpuTime()
			_ = s.Collect(b.Context(), inputs[i], batch)
			cost[i] = cpuTime() - before
			series += batch.Len()
		}
		return series
	}
	before := cpuTime()
	run()
	b.Logf("first run: %.0f ms of CPU;%s", (cpuTime()-before)*1e3, costs(specs, cost))
	series := 0
	start := cpuTime()
	for b.Loop() {
		series = run()
	}
	b.ReportMetric((cpuTime()-start)*1e3/float64(b.N), "cpu-ms/op")
	b.ReportMetric(float64(series), "series")
	rest := 0.0
	for i, s := range specs {
		rest += cost[i] / s.Interval.Seconds()
	}
	b.Logf("last run:%s", costs(specs, cost))
	b.ReportMetric(rest*100, "rest-%")
}

// costs lists what takes more than a millisecond.
func costs(specs []Spec, seconds []float64) string {
	out := ""
	for i, s := range specs {
		if seconds[i] > 1e-3 {
			out += fmt.Sprintf(" %s %.1f ms", s.Name, seconds[i]*1e3)
		}
	}
	return out
}

// BenchmarkFirstRun is a run of all collectors that know nothing yet, with the
// crowd of BenchmarkRun: it finds the owners of all sockets and their versions.
func BenchmarkFirstRun(b *testing.B) {
	testkit.Crowd(b, 1000, 400)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // as the program does
	start := cpuTime()
	for b.Loop() {
		for _, s := range collectors() {
			s.defaults()
			in := &Input{Root: hostfs.New(hostfs.Paths{}), Log: slog.New(slog.DiscardHandler), Now: time.Now, Settings: Settings{ServicesEnabled: true}}
			_ = s.Collect(b.Context(), in, metric.NewBatch(s.MaxSeries))
		}
	}
	b.ReportMetric((cpuTime()-start)*1e3/float64(b.N), "cpu-ms/op")
}
