// SPDX-License-Identifier: Apache-2.0

// Package aggregate turns the kernel's per-CPU counters into metric rows and
// rates. A metric and the map that has its name are laid out alike, so no
// probe needs code of its own for its counters.
package aggregate

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"security-exporter/internal/metric"
	"security-exporter/internal/sensor/probe"
)

const prefix = "security_ebpf_"

// Rows adds a row for each cell of each counter map of the probe. Metrics
// without a map are left to the probe's own Collect. A gauge below zero, which
// two CPUs read one after the other may show for a moment, counts as zero.
func Rows(p *probe.Probe, batch *metric.Batch) error {
	var errs []error
	for _, m := range p.Spec().Metrics {
		name := strings.TrimPrefix(m.Name, prefix)
		if p.Map(name) == nil {
			continue
		}
		for i := range m.Size() {
			n, err := p.Counter(name, uint32(i))
			if err != nil {
				errs = append(errs, err)
				continue
			}
			batch.Add(m, float64(max(n, 0)), m.LabelValues(i)...)
		}
	}
	return errors.Join(errs...)
}

// Total is the number of events that a probe has counted since its start.
func Total(p *probe.Probe) (uint64, error) {
	var total uint64
	for _, m := range p.Spec().Metrics {
		name := strings.TrimPrefix(m.Name, prefix)
		if m.Kind != metric.Counter || p.Map(name) == nil {
			continue
		}
		for i := range m.Size() {
			n, err := p.Counter(name, uint32(i))
			if err != nil {
				return 0, fmt.Errorf("total of probe %s: %w", p.Spec().Name(), err)
			}
			total += uint64(max(n, 0))
		}
	}
	return total, nil
}

// Rate is the change of a counter per second between two looks at it. The
// zero value has seen nothing. Not safe for concurrent use.
type Rate struct {
	last uint64
	at   time.Time
}

// Update takes the counter's value at a time and returns the rate since the
// previous one: 0 for the first, and when the counter or the clock went back.
func (r *Rate) Update(value uint64, at time.Time) float64 {
	elapsed := at.Sub(r.at).Seconds()
	rate := 0.0
	if !r.at.IsZero() && elapsed > 0 && value >= r.last {
		rate = float64(value-r.last) / elapsed
	}
	r.last, r.at = value, at
	return rate
}
