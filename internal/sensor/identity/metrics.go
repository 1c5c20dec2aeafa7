// SPDX-License-Identifier: Apache-2.0

package identity

import "security-exporter/internal/metric"

// Metrics are the rows of a Resolver.
type Metrics struct {
	entries, capacity, evicted, unresolved *metric.Metric
}

// Why an event got no identity.
const (
	reasonGone   = "gone"
	reasonBudget = "budget"
)

// NewMetrics declares the rows.
func NewMetrics() Metrics {
	return Metrics{
		entries: metric.New(metric.Gauge, "security_ebpf_identity_entries",
			"Cgroups and processes whose container or unit is remembered."),
		capacity: metric.New(metric.Gauge, "security_ebpf_identity_capacity",
			"Cgroups and processes that can be remembered."),
		evicted: metric.New(metric.Counter, "security_ebpf_identity_evictions_total",
			"Cgroups and processes that were forgotten for others."),
		unresolved: metric.New(metric.Counter, "security_ebpf_identity_unresolved_total",
			"Lookups that found no container or unit: its cgroup or process was gone, or it would have taken more time than allowed.",
			metric.Closed("reason", reasonGone, reasonBudget)),
	}
}

// Table lists the rows.
func (m Metrics) Table() []*metric.Metric {
	return []*metric.Metric{m.entries, m.capacity, m.evicted, m.unresolved}
}

// Add adds the rows of a Resolver.
func (m Metrics) Add(batch *metric.Batch, s Stats) {
	batch.Add(m.entries, float64(s.Entries))
	batch.Add(m.capacity, float64(s.Capacity))
	batch.Add(m.evicted, float64(s.Evicted))
	batch.Add(m.unresolved, float64(s.Gone), reasonGone)
	batch.Add(m.unresolved, float64(s.Budget), reasonBudget)
}
