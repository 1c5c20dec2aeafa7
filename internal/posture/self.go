// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"slices"

	"security-exporter/internal/metric"
)

// self is what the Runner says about the collectors.
type self struct {
	files []string

	success, duration, lastSuccess *metric.Metric
	dropped, changes               *metric.Metric
}

func newSelf(specs []Spec) *self {
	var names []string
	s := &self{}
	for _, spec := range specs {
		names = append(names, spec.Name)
		s.files = append(s.files, spec.Watch...)
	}
	slices.Sort(s.files)
	s.files = slices.Compact(s.files)

	collector := closedIfAny("collector", "Name of the collector.", names)
	s.success = metric.NewState("linux_security_scrape_collector_success",
		"Whether the last run of the collector read all it wanted; a host that has no such thing counts as success. Absent before the first run has ended.",
		collector)
	s.duration = metric.NewState("linux_security_scrape_collector_duration_seconds",
		"Duration of the last run of the collector in seconds. Absent before the first run has ended.",
		collector)
	s.lastSuccess = metric.New(metric.Gauge, "linux_security_collector_last_success_timestamp_seconds",
		"Time of the last successful run of the collector in seconds since 1970, 0 if there was none.",
		collector)
	s.dropped = metric.New(metric.Counter, "linux_security_series_dropped_total",
		"Series left out of snapshots because the collector had reached its cap.",
		collector)
	s.changes = metric.New(metric.Counter, "linux_security_config_changes_total",
		"Changes seen since the start in a file or group of files that a collector depends on; those within 0.3 seconds count once.",
		closedIfAny("file", "File or group of files.", s.files))
	return s
}

// closedIfAny is a closed label, or an open one that has no values because all
// collectors are off.
func closedIfAny(name, help string, values []string) metric.Label {
	if len(values) == 0 {
		return metric.Open(name, help)
	}
	return metric.Closed(name, values...)
}

func (s *self) table() []*metric.Metric {
	return []*metric.Metric{s.success, s.duration, s.lastSuccess, s.dropped, s.changes}
}
