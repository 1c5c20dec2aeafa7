// SPDX-License-Identifier: Apache-2.0

package harden

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"security-exporter/internal/metric"
)

// Collector exports security_exporter_hardening_info. It is safe for
// concurrent use.
type Collector struct{ info *metric.Metric }

// NewCollector returns a collector for this process.
func NewCollector() *Collector { return &Collector{info()} }

// Metrics is the table of this package, for the documentation.
func Metrics() []*metric.Metric { return []*metric.Metric{info()} }

func info() *metric.Metric {
	return metric.NewState("security_exporter_hardening_info",
		"What the exporter may still do, as /proc/PID/status shows it; always 1.",
		metric.Open("capabilities", "effective capabilities, or their number in hexadecimal if it has others than it could use; none"),
		metric.Closed("no_new_privs", "false", "true"),
		metric.Closed("seccomp", "false", "true"))
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) { ch <- c.info.Desc() }

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	s, err := readStatus("/proc/self/status")
	if err != nil {
		ch <- prometheus.NewInvalidMetric(c.info.Desc(), err)
		return
	}
	batch := metric.NewBatch(1)
	batch.Add(c.info, 1, capabilityText(s.effective), strconv.FormatBool(s.noNewPrivs), strconv.FormatBool(s.seccomp))
	batch.Collect(ch)
}
