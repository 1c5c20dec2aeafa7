// SPDX-License-Identifier: Apache-2.0

package metric

import (
	"fmt"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Batch collects the rows of one producer for one scrape. It is filled by one
// goroutine; once filled it is read-only and safe for concurrent Collect.
type Batch struct {
	limit   int
	seen    map[string]struct{}
	rows    []row
	dropped int

	// SkipLegacy makes Add ignore metrics marked Legacy. Set it before Add.
	SkipLegacy bool

	// key and clean are reused by Add.
	key   []byte
	clean []string
}

// NewBatch returns an empty batch that accepts at most limit series; 0 means
// no limit, for producers whose label sets are all closed.
func NewBatch(limit int) *Batch {
	return &Batch{limit: limit, seen: make(map[string]struct{})}
}

// Add appends one series. Values are cleaned first. A label set that the
// batch already holds is ignored, since Prometheus refuses a page with two;
// one above the limit is counted in Dropped. A value outside a closed set, or
// one too many or too few, is a programming error and panics.
func (b *Batch) Add(m *Metric, value float64, values ...string) {
	if m.Legacy && b.SkipLegacy {
		return
	}
	if len(values) != len(m.Labels) {
		panic(fmt.Sprintf("metric %s: %d labels, %d values", m.Name, len(m.Labels), len(values)))
	}
	b.clean = b.clean[:0]
	b.key = append(b.key[:0], m.Name...)
	for i, v := range values {
		if l := &m.Labels[i]; l.Values == nil {
			v = Clean(v)
		} else if !slices.Contains(l.Values, v) {
			panic(fmt.Sprintf("metric %s: label %s has no value %q", m.Name, l.Name, v))
		}
		b.clean = append(b.clean, v)
		// No clean value holds a NUL, so the key tells all label sets apart.
		b.key = append(append(b.key, 0), v...)
	}
	if _, dup := b.seen[string(b.key)]; dup {
		return
	}
	if b.limit > 0 && len(b.rows) >= b.limit {
		b.dropped++
		return
	}
	b.seen[string(b.key)] = struct{}{}
	b.rows = append(b.rows, newRow(m, value, b.clean))
}

// Bool is Add with 1 for true and 0 for false.
func (b *Batch) Bool(m *Metric, value bool, values ...string) {
	v := 0.0
	if value {
		v = 1
	}
	b.Add(m, v, values...)
}

// OneOf adds the series of a state set: 1 for the value of the last label that
// holds, 0 for its other values. The labels before it are given first.
func (b *Batch) OneOf(m *Metric, state string, before ...string) {
	for _, v := range m.Labels[len(m.Labels)-1].Values {
		b.Bool(m, v == state, append(before[:len(before):len(before)], v)...)
	}
}

// Fill adds a 0 for every series of a closed label set that was not added.
func (b *Batch) Fill(table []*Metric) {
	for _, m := range table {
		if m.Sparse {
			continue
		}
		for i := range m.Size() {
			b.Add(m, 0, m.LabelValues(i)...)
		}
	}
}

// Len is the number of series held.
func (b *Batch) Len() int { return len(b.rows) }

// Dropped is the number of series refused because the batch was full.
func (b *Batch) Dropped() int { return b.dropped }

// Collect sends every series to ch.
func (b *Batch) Collect(ch chan<- prometheus.Metric) {
	for i := range b.rows {
		ch <- &b.rows[i]
	}
}

// row is one series. The library's own constant metric takes eight times the
// allocations, which a page of 1,500 series notices.
type row struct {
	metric *Metric
	value  float64
	labels []*dto.LabelPair
}

func newRow(m *Metric, value float64, values []string) row {
	pairs := make([]struct {
		pair  dto.LabelPair
		value string
	}, len(values))
	labels := make([]*dto.LabelPair, len(values))
	for i, l := range m.order {
		p := &pairs[i]
		p.value = values[l]
		p.pair.Name, p.pair.Value = &m.Labels[l].Name, &p.value
		labels[i] = &p.pair
	}
	return row{metric: m, value: value, labels: labels}
}

// Desc implements prometheus.Metric.
func (r *row) Desc() *prometheus.Desc { return r.metric.desc }

// Write implements prometheus.Metric.
func (r *row) Write(out *dto.Metric) error {
	out.Label = r.labels
	if r.metric.Kind == Counter {
		out.Counter = &dto.Counter{Value: &r.value}
	} else {
		out.Gauge = &dto.Gauge{Value: &r.value}
	}
	return nil
}
