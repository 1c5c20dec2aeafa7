// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"security-exporter/internal/buildinfo"
)

// Status is what StatusPath returns. Its numbers are those of /metrics.
type Status struct {
	Version  string    `json:"version"`
	Revision string    `json:"revision"`
	Started  time.Time `json:"started"`
	// NotReady is why the exporter is not ready yet; empty if it is.
	NotReady   []string    `json:"not_ready"`
	Runtime    Runtime     `json:"runtime"`
	Collectors []Collector `json:"collectors"`
}

// Runtime is the state of the runtime half.
type Runtime struct {
	// State is active, partial, degraded or disabled.
	State string `json:"state"`
	// SampleRate keeps one detail event in SampleRate.
	SampleRate float64 `json:"sample_rate"`
	Probes     []Probe `json:"probes"`
	// Dropped counts events that a way out could not take, by output.
	Dropped map[string]float64 `json:"events_dropped"`
}

// Probe is the state of one probe.
type Probe struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Reason string `json:"reason"`
	Hook   string `json:"hook"`
	// EventsPerSecond is what it counts, Events the detail events it made:
	// those that were delivered, left out by sampling, and lost.
	EventsPerSecond float64 `json:"events_per_second"`
	Events          float64 `json:"events"`
	Delivered       float64 `json:"events_delivered"`
	Sampled         float64 `json:"events_sampled"`
	Lost            float64 `json:"events_lost"`
}

// Collector is the state of one posture collector.
type Collector struct {
	Name            string  `json:"name"`
	Success         bool    `json:"success"`
	DurationSeconds float64 `json:"duration_seconds"`
}

// MetricStatus reads the status from the metrics. It is safe for concurrent
// use; readings come one after the other.
type MetricStatus struct {
	Gatherer prometheus.Gatherer
	// Ready returns why the exporter is not ready.
	Ready   func() []string
	Started time.Time

	mu sync.Mutex
}

// Status implements StatusSource.
func (m *MetricStatus) Status() (Status, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	families, err := m.Gatherer.Gather()
	if len(families) == 0 && err != nil {
		return Status{}, fmt.Errorf("no metrics: %w", err)
	}
	page := make(map[string]*dto.MetricFamily, len(families))
	for _, f := range families {
		page[f.GetName()] = f
	}
	s := Status{
		Version: buildinfo.Version(), Revision: buildinfo.Revision(), Started: m.Started.UTC(),
		NotReady:   append([]string{}, m.Ready()...),
		Collectors: []Collector{},
		Runtime:    Runtime{State: "disabled", SampleRate: 1, Probes: []Probe{}, Dropped: map[string]float64{}},
	}
	each(page["security_ebpf_up"], func(labels map[string]string, _ float64) { s.Runtime.State = labels["status"] })
	each(page["security_ebpf_sample_rate"], func(_ map[string]string, v float64) { s.Runtime.SampleRate = v })
	each(page["security_ebpf_events_dropped_total"], func(labels map[string]string, v float64) { s.Runtime.Dropped[labels["output"]] += v })
	s.Runtime.probes(page)
	s.collectors(page)
	return s, nil
}

func (r *Runtime) probes(page map[string]*dto.MetricFamily) {
	at := map[string]int{}
	each(page["security_ebpf_probe_info"], func(labels map[string]string, _ float64) {
		r.Probes = append(r.Probes, Probe{Name: labels["probe"], State: labels["state"], Reason: labels["reason"], Hook: labels["hook"]})
	})
	slices.SortFunc(r.Probes, func(a, b Probe) int { return strings.Compare(a.Name, b.Name) })
	for i, p := range r.Probes {
		at[p.Name] = i
	}
	add := func(name string, to func(*Probe) *float64) {
		each(page[name], func(labels map[string]string, v float64) {
			if i, ok := at[labels["probe"]]; ok {
				*to(&r.Probes[i]) += v
			}
		})
	}
	add("security_ebpf_events_per_second", func(p *Probe) *float64 { return &p.EventsPerSecond })
	add("security_ebpf_events_total", func(p *Probe) *float64 { return &p.Events })
	add("security_ebpf_events_delivered_total", func(p *Probe) *float64 { return &p.Delivered })
	add("security_ebpf_events_sampled_total", func(p *Probe) *float64 { return &p.Sampled })
	add("security_ebpf_events_lost_total", func(p *Probe) *float64 { return &p.Lost })
}

func (s *Status) collectors(page map[string]*dto.MetricFamily) {
	at := map[string]int{}
	each(page["linux_security_scrape_collector_success"], func(labels map[string]string, v float64) {
		at[labels["collector"]] = len(s.Collectors)
		s.Collectors = append(s.Collectors, Collector{Name: labels["collector"], Success: v == 1})
	})
	each(page["linux_security_scrape_collector_duration_seconds"], func(labels map[string]string, v float64) {
		if i, ok := at[labels["collector"]]; ok {
			s.Collectors[i].DurationSeconds = v
		}
	})
}

// each calls f with every series of a family, which may be nil.
func each(family *dto.MetricFamily, f func(labels map[string]string, value float64)) {
	for _, m := range family.GetMetric() {
		labels := make(map[string]string, len(m.GetLabel()))
		for _, l := range m.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		f(labels, m.GetGauge().GetValue()+m.GetCounter().GetValue())
	}
}
