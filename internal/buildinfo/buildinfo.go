// SPDX-License-Identifier: Apache-2.0

// Package buildinfo says which build of the program this is. The version and
// the revision are those of prometheus/common/version, which the Makefile has
// the linker set.
package buildinfo

import (
	"cmp"
	"fmt"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/version"

	"security-exporter/internal/metric"
)

// Name is the name of the program.
const Name = "security-exporter"

// Version is the release, or "devel" for a build that was given none.
func Version() string { return cmp.Or(version.Version, "devel") }

// Revision is the commit the program was built from, or "unknown".
func Revision() string { return cmp.Or(version.GetRevision(), "unknown") }

// Text is what --version prints.
func Text() string {
	return fmt.Sprintf("%s %s (commit %s, %s, %s/%s)", Name, Version(), Revision(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// Collector exports security_exporter_build_info. It is immutable and safe
// for concurrent use.
type Collector struct {
	info  *metric.Metric
	batch *metric.Batch
}

// NewCollector returns a collector for this build.
func NewCollector() *Collector {
	c := &Collector{info: info(), batch: metric.NewBatch(1)}
	c.batch.Add(c.info, 1, Version(), Revision(), runtime.Version())
	return c
}

// Metrics is the table of this package, for the documentation.
func Metrics() []*metric.Metric { return []*metric.Metric{info()} }

func info() *metric.Metric {
	return metric.NewState("security_exporter_build_info", "The build of the exporter that is running.",
		metric.Open("version", "release, or devel"),
		metric.Open("revision", "commit the program was built from"),
		metric.Open("goversion", "Go release it was built with"))
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) { ch <- c.info.Desc() }

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) { c.batch.Collect(ch) }
