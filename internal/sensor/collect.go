// SPDX-License-Identifier: Apache-2.0

package sensor

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/metric"
	"security-exporter/internal/sensor/aggregate"
	"security-exporter/internal/sensor/probe"
)

// startPatience bounds how long a scrape waits for the start.
const startPatience = 8 * time.Second

// Describe sends the descriptor of every metric of the runtime half.
func (m *Manager) Describe(ch chan<- *prometheus.Desc) {
	for _, row := range m.all {
		ch <- row.Desc()
	}
}

// Collect reads the kernel's counters now and sends every series. Whatever the
// state, each closed label set is complete: probe_up says which zeros count.
//
// A scrape during the start waits for it, so that the first one is right.
func (m *Manager) Collect(ch chan<- prometheus.Metric) {
	select {
	case <-m.started:
	case <-time.After(startPatience):
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	batch := metric.NewBatch(0)
	m.collectStatus(batch)
	for _, p := range m.probes {
		m.collectProbe(p, batch)
	}
	if m.shared != nil {
		m.collectShared(batch)
	}
	m.collectDetail(batch)
	batch.Fill(m.all)
	batch.Collect(ch)
}

func (m *Manager) collectStatus(batch *metric.Batch) {
	batch.Add(m.own.sampleRate, float64(m.SampleRate()))
	statuses := m.statuses()
	status, up := overall(m.options.Enabled, statuses)
	batch.Bool(m.own.up, up, status)
	for i, name := range abi.Probes {
		s := statuses[i]
		batch.Bool(m.own.probeUp, s.Up(), name)
		batch.Add(m.own.probeInfo, 1, name, s.Hook, string(s.State), string(s.Reason))
		batch.Add(m.own.rate, m.rates[i], name)
	}
}

// statuses are those of all probes; one that was not started is disabled.
func (m *Manager) statuses() []probe.Status {
	out := slices.Repeat([]probe.Status{{State: probe.NotApplicable, Reason: probe.ReasonDisabled}}, len(abi.Probes))
	for _, p := range m.probes {
		out[p.Spec().Index] = p.Status()
	}
	return out
}

// overall sums up: a probe that does not apply, or was not asked for, is no
// loss; one that runs in part is.
func overall(enabled bool, statuses []probe.Status) (status string, up bool) {
	if !enabled {
		return statusDisabled, false
	}
	running, failed := false, false
	for _, s := range statuses {
		running = running || s.Running()
		failed = failed || (!s.Up() && s.State != probe.NotApplicable)
	}
	switch {
	case !running:
		return statusDegraded, false
	case failed:
		return statusPartial, true
	default:
		return statusActive, true
	}
}

func (m *Manager) collectProbe(p *probe.Probe, batch *metric.Batch) {
	spec := p.Spec()
	if err := aggregate.Rows(p, batch); err != nil {
		m.log.Warn("Counters not read", "err", err)
	}
	if spec.Collect != nil && p.Status().Running() {
		spec.Collect(p, batch)
	}
	batch.Add(m.own.lost, float64(p.RecursionMisses()), spec.Name(), abi.Losses[abi.LossRecursion])
	refused := uint64(0)
	for _, reader := range m.readers {
		refused += reader.Refused(spec.Index)
	}
	batch.Add(m.own.lost, float64(refused), spec.Name(), abi.Losses[abi.LossDecode])
}

// collectShared adds what all objects count together.
func (m *Manager) collectShared(batch *metric.Batch) {
	for i, name := range abi.Probes {
		batch.Add(m.own.events, m.sum("events_total", i), name)
		batch.Add(m.own.sampled, m.sum("events_sampled_total", i), name)
		batch.Add(m.own.delivered, m.delivered(i), name)
		for j, reason := range abi.Losses {
			if j != int(abi.LossDecode) && j != int(abi.LossRecursion) {
				batch.Add(m.own.lost, m.sum("events_lost_total", i*len(abi.Losses)+j), name, reason)
			}
		}
	}
	usage := map[string]probe.Table{}
	for _, p := range m.probes {
		if p.Spec().Tables == nil || !p.Status().Running() {
			continue
		}
		for _, table := range p.Spec().Tables(p) {
			sum := usage[table.Name]
			sum.Entries += table.Entries
			sum.Capacity += table.Capacity
			sum.Evictions += table.Evictions
			usage[table.Name] = sum
		}
	}
	for i, name := range tableNames {
		table := usage[name]
		batch.Add(m.own.entries, float64(table.Entries), name)
		batch.Add(m.own.capacity, float64(table.Capacity), name)
		refused := 0.0
		if i < len(abi.Tables) {
			refused = m.sum("map_evictions", i)
		}
		batch.Add(m.own.evictions, refused+float64(table.Evictions), name)
	}
}

// delivered is how many events of a probe the readers have handed over.
func (m *Manager) delivered(index int) float64 {
	sum := uint64(0)
	for _, reader := range m.readers {
		sum += reader.Delivered(index)
	}
	return float64(sum)
}

func (m *Manager) sum(name string, index int) float64 {
	n, err := m.shared.Counter(name, uint32(index))
	if err != nil {
		return 0
	}
	return float64(max(n, 0))
}
