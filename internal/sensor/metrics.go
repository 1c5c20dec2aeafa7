// SPDX-License-Identifier: Apache-2.0

package sensor

import (
	"slices"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/metric"
	"security-exporter/internal/sensor/identity"
	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/sensor/topn"
)

// What security_ebpf_up says of the whole runtime half.
const (
	statusActive   = "active"   // every probe that applies runs
	statusPartial  = "partial"  // some that could run here do not
	statusDegraded = "degraded" // none runs
	statusDisabled = "disabled" // not asked for
)

// tableNames are the bounded tables, those of the border contract first: the
// programs count what these refuse under their index there.
var tableNames = append(slices.Clone(abi.Tables), "watched_objects", "watched_names", "watched_directories")

// ownMetrics are the rows of the runtime half that belong to no probe.
type ownMetrics struct {
	up, sampleRate, probeUp, probeInfo, rate, events, sampled, delivered, lost, entries, capacity, evictions *metric.Metric
	top                                                                                                      topn.Metrics
	identity                                                                                                 identity.Metrics
}

func newOwnMetrics() ownMetrics {
	probes := metric.Closed("probe", abi.Probes...)
	table := metric.Closed("map", tableNames...)
	return ownMetrics{
		up: metric.NewState("security_ebpf_up",
			"State of the runtime half: 1 when probes run (active, partial), 0 when none does (degraded, disabled).",
			metric.Closed("status", statusActive, statusPartial, statusDegraded, statusDisabled)),
		sampleRate: metric.New(metric.Gauge, "security_ebpf_sample_rate",
			"One in how many detail events is kept; counters are never sampled."),
		probeUp: metric.New(metric.Gauge, "security_ebpf_probe_up",
			"Whether every part of the probe that applies to this kernel is attached.", probes),
		probeInfo: metric.NewState("security_ebpf_probe_info",
			"State of each probe, the hooks in use, and why it is not attached.",
			probes, metric.Open("hook", "The rungs in use, one for each part of the probe, separated by spaces."),
			metric.Closed("state", probe.States...), metric.Closed("reason", probe.Reasons...)),
		rate: metric.New(metric.Gauge, "security_ebpf_events_per_second",
			"Events counted per second over the last period of 5 seconds.", probes),
		events: metric.New(metric.Counter, "security_ebpf_events_total",
			"Detail events produced before sampling.", probes),
		sampled: metric.New(metric.Counter, "security_ebpf_events_sampled_total",
			"Detail events that sampling left out; no loss, since those kept stand for them.", probes),
		delivered: metric.New(metric.Counter, "security_ebpf_events_delivered_total",
			"Detail events that reached user space.", probes),
		lost: metric.New(metric.Counter, "security_ebpf_events_lost_total",
			"Detail events lost after sampling, and runs of programs that the kernel's recursion guard prevented (recursion), which produced none.",
			probes, metric.Closed("reason", abi.Losses...)),
		entries: metric.New(metric.Gauge, "security_ebpf_map_entries",
			"Entries in a bounded kernel table.", table),
		capacity: metric.New(metric.Gauge, "security_ebpf_map_capacity",
			"Entries that a bounded kernel table can hold.", table),
		evictions: metric.New(metric.Counter, "security_ebpf_map_evictions_total",
			"Entries that a full kernel table refused or dropped.", table),
		top: topn.NewMetrics(), identity: identity.NewMetrics(),
	}
}

func (m ownMetrics) table() []*metric.Metric {
	return slices.Concat([]*metric.Metric{
		m.up, m.sampleRate, m.probeUp, m.probeInfo, m.rate, m.events, m.sampled, m.delivered, m.lost, m.entries, m.capacity, m.evictions,
	}, m.top.Table(), m.identity.Table())
}

// Names are the probes' names, as flags and labels spell them.
func Names() []string { return slices.Clone(abi.Probes) }

// Metrics are all rows of the runtime half, for its documentation.
func Metrics() []*metric.Metric {
	out := newOwnMetrics().table()
	for _, spec := range all(nil) {
		out = append(out, spec.Metrics...)
	}
	return out
}
