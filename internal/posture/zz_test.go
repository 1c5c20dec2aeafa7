package posture

import (
	"log/slog"
	"testing"
	"time"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
	"security-exporter/internal/testkit"
)

func BenchmarkZZ(b *testing.B) {
	testkit.Crowd(b, 1000, 400)
	for b.Loop() {
		s := portsCollector()
		s.defaults()
		in := &Input{Root: hostfs.New(hostfs.Paths{}), Log: slog.New(slog.DiscardHandler), Now: time.Now}
		before := cpuTime()
		_ = s.Collect(b.Context(), in, metric.NewBatch(1000))
		b.ReportMetric((cpuTime()-before)*1e3, "cpu-ms")
	}
}
