// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"golang.org/x/sys/unix"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
)

var update = flag.Bool("update", false, "write the golden metrics.prom files")

// fixtureNow is the clock of every fixture: 2026-01-02 03:04:05 UTC.
var fixtureNow = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// option changes how a fixture is run.
type option func(*fixture)

type fixture struct {
	settings Settings
	prepare  func(t *testing.T, name, rootfs string)
}

// withSettings runs the fixtures with these settings.
func withSettings(s Settings) option { return func(f *fixture) { f.settings = s } }

// prepared copies each rootfs to a temporary folder and calls prepare on the
// copy before the run: for modes, owners, times, FIFOs and large files, which
// a repository cannot hold. name is the case.
func prepared(prepare func(t *testing.T, name, rootfs string)) option {
	return func(f *fixture) { f.prepare = prepare }
}

// golden runs a collector on every folder testdata/NAME/CASE: the host is
// CASE/rootfs, with /proc and /sys below it, and what the collector adds,
// together with its error, must be CASE/metrics.prom. -update writes that
// file. There must be at least three cases. Files beside the folders, such as
// a README with the provenance, are left alone.
func golden(t *testing.T, newSpec func() Spec, options ...option) {
	t.Helper()
	f := fixture{}
	for _, o := range options {
		o(&f)
	}
	base := filepath.Join("testdata", newSpec().Name)
	cases, err := os.ReadDir(base)
	if err != nil {
		t.Fatal(err)
	}
	cases = slices.DeleteFunc(cases, func(e os.DirEntry) bool { return !e.IsDir() })
	if len(cases) < 3 {
		t.Errorf("%s has %d cases, at least 3 are needed", base, len(cases))
	}
	for _, c := range cases {
		t.Run(c.Name(), func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(base, c.Name())
			rootfs := filepath.Join(dir, "rootfs")
			if f.prepare != nil {
				copied := t.TempDir()
				if err := os.CopyFS(copied, os.DirFS(rootfs)); err != nil {
					t.Fatal(err)
				}
				rootfs = copied
				f.prepare(t, c.Name(), rootfs)
			}
			compare(t, filepath.Join(dir, "metrics.prom"), exposition(t, newSpec(), fixtureInput(rootfs, f.settings)))
		})
	}
}

func compare(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; -update writes it. got:\n%s", file, got)
	}
}

// fixtureInput is what a collector gets for a host below rootfs.
func fixtureInput(rootfs string, s Settings) *Input {
	return &Input{
		Root: hostfs.New(hostfs.Paths{
			Rootfs: rootfs,
			Procfs: filepath.Join(rootfs, "proc"),
			Sysfs:  filepath.Join(rootfs, "sys"),
		}),
		Settings: s,
		Log:      slog.New(slog.DiscardHandler),
		Now:      func() time.Time { return fixtureNow },
	}
}

// exposition runs a collector once and returns its series as a scrape shows
// them, below a comment with the outcome. A series of a metric that the Spec
// does not declare, or one that Prometheus refuses, fails the test.
func exposition(t *testing.T, s Spec, in *Input) []byte {
	t.Helper()
	s.defaults()
	batch := metric.NewBatch(s.MaxSeries)
	err := s.Collect(t.Context(), in, batch)
	var out bytes.Buffer
	partial := (*partialError)(nil)
	switch {
	case err == nil:
	case errors.As(err, &partial):
		fmt.Fprintf(&out, "# partial: %s\n", comment(err))
	case errors.Is(err, ErrNotApplicable), errors.Is(err, hostfs.ErrNotExist):
		fmt.Fprintf(&out, "# not applicable: %s\n", comment(err))
		return out.Bytes()
	default:
		fmt.Fprintf(&out, "# error: %s\n", comment(err))
		return out.Bytes()
	}
	for _, family := range gather(t, batchCollector{s.Metrics, batch}) {
		if _, err := expfmt.MetricFamilyToText(&out, family); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

// comment keeps joined errors inside the comment of the exposition.
func comment(err error) string { return strings.ReplaceAll(err.Error(), "\n", "\n#   ") }

// gather is one scrape under the strictest rules client_golang has.
func gather(t *testing.T, c prometheus.Collector) []*dto.MetricFamily {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	if err := reg.Register(c); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families
}

type batchCollector struct {
	table []*metric.Metric
	batch *metric.Batch
}

func (c batchCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range c.table {
		ch <- m.Desc()
	}
}

func (c batchCollector) Collect(ch chan<- prometheus.Metric) { c.batch.Collect(ch) }

// stub is a collector for tests of the engine.
func stub(name string, collect func(ctx context.Context, in *Input, out *metric.Batch) error, metrics ...*metric.Metric) Spec {
	return Spec{Name: name, Help: "Stub.", Metrics: metrics, Collect: collect}
}

// threadTime is the processor time of f, which the load of the machine and
// other tests do not add to. What f gives to other goroutines is not in it.
func threadTime(t *testing.T, f func()) time.Duration {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	now := func() time.Duration {
		var ts unix.Timespec
		must(t, unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts))
		return time.Duration(ts.Nano())
	}
	before := now()
	f()
	return now() - before
}
