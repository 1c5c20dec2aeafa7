// SPDX-License-Identifier: Apache-2.0

package metric

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// Batch collects the rows of one producer for one scrape. It is filled by one
// goroutine; once filled it is read-only and safe for concurrent Collect.
type Batch struct {
	limit   int
	seen    map[string]struct{}
	rows    []prometheus.Metric
	dropped int

	// SkipLegacy makes Add ignore metrics marked Legacy. Set it before Add.
	SkipLegacy bool
}

// NewBatch returns an empty batch that accepts at most limit series; 0 means
// no limit, for producers whose label sets are all closed.
func NewBatch(limit int) *Batch {
	return &Batch{limit: limit, seen: make(map[string]struct{})}
}

// Add appends one series. Values are cleaned first. A label set that the
// batch already holds is ignored, since Prometheus refuses a page with two;
// one above the limit is counted in Dropped. A value outside a closed set is
// a programming error and panics.
func (b *Batch) Add(m *Metric, value float64, values ...string) {
	if m.Legacy && b.SkipLegacy {
		return
	}
	clean := values
	for i, v := range values {
		if l := m.Labels[i]; l.Values != nil {
			if !slices.Contains(l.Values, v) {
				panic(fmt.Sprintf("metric %s: label %s has no value %q", m.Name, l.Name, v))
			}
			continue
		}
		if c := Clean(v); c != v {
			if &clean[0] == &values[0] {
				clean = slices.Clone(values)
			}
			clean[i] = c
		}
	}
	key := m.Name + "\x00" + strings.Join(clean, "\x00")
	if _, dup := b.seen[key]; dup {
		return
	}
	if b.limit > 0 && len(b.rows) >= b.limit {
		b.dropped++
		return
	}
	b.seen[key] = struct{}{}
	b.rows = append(b.rows, prometheus.MustNewConstMetric(m.desc, m.valueType(), value, clean...))
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

// Len is the number of series held, Dropped the number refused for the limit.
func (b *Batch) Len() int { return len(b.rows) }

// Dropped is the number of series refused because the batch was full.
func (b *Batch) Dropped() int { return b.dropped }

// Collect sends every series to ch.
func (b *Batch) Collect(ch chan<- prometheus.Metric) {
	for _, r := range b.rows {
		ch <- r
	}
}
