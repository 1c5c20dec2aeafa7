// SPDX-License-Identifier: Apache-2.0

package identity

import "security-exporter/internal/metric"

// Metrics are the rows of a Resolver.
type Metrics struct {
	entries, capacity, evicted, unresolved *metric.Metric
	programsEvicted, noProgram             *metric.Metric
}

// Why an event got no identity.
const (
	reasonGone   = "gone"
	reasonBudget = "budget"
	// reasonChanged is for executables alone.
	reasonChanged = "changed"
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
		programsEvicted: metric.New(metric.Counter, "security_ebpf_executable_evictions_total",
			"Processes, ended or not, whose executable was forgotten for others."),
		noProgram: metric.New(metric.Counter, "security_ebpf_executable_unresolved_total",
			"Connection events without executable: the process was gone, may run something else by now, or asking would have taken more time than allowed.",
			metric.Closed("reason", reasonGone, reasonChanged, reasonBudget)),
	}
}

// Table lists the rows.
func (m Metrics) Table() []*metric.Metric {
	return []*metric.Metric{m.entries, m.capacity, m.evicted, m.unresolved, m.programsEvicted, m.noProgram}
}

// Add adds the rows of a Resolver.
func (m Metrics) Add(batch *metric.Batch, s Stats) {
	batch.Add(m.entries, float64(s.Entries))
	batch.Add(m.capacity, float64(s.Capacity))
	batch.Add(m.evicted, float64(s.Evicted))
	batch.Add(m.unresolved, float64(s.Gone), reasonGone)
	batch.Add(m.unresolved, float64(s.Budget), reasonBudget)
}

// AddExecutables adds the rows of Executables.
func (m Metrics) AddExecutables(batch *metric.Batch, s ExecutableStats) {
	batch.Add(m.programsEvicted, float64(s.Evicted))
	batch.Add(m.noProgram, float64(s.Gone), reasonGone)
	batch.Add(m.noProgram, float64(s.Changed), reasonChanged)
	batch.Add(m.noProgram, float64(s.Budget), reasonBudget)
}
