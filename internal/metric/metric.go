// SPDX-License-Identifier: Apache-2.0

// Package metric declares metrics once. A Metric is a row of a table: name,
// help, type, labels and the values a label may take. Everything else is
// derived from the table: the Prometheus descriptors, the series that exist
// with 0 from the first scrape, the linter's view and docs/metrics.md.
//
// A producer fills a Batch with rows and hands it to Prometheus. The Batch is
// the only way a string that a process chose can become a label, so it is the
// place that cleans strings, drops duplicate label sets and enforces the cap.
package metric

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
)

// Kind is the Prometheus type of a metric.
type Kind uint8

// The two kinds in use. Histograms and summaries are not: the counts are made
// in the kernel, where a bucket costs a map lookup.
const (
	Gauge Kind = iota
	Counter
)

// String returns the type as the exposition format spells it.
func (k Kind) String() string {
	if k == Counter {
		return "counter"
	}
	return "gauge"
}

// Label is one label of a metric. A label with Values is closed: no other
// value may appear. Values are in index order, so that the number the kernel
// counts under is the position in this slice.
type Label struct {
	Name   string
	Values []string
	// Help says what an open label holds, for docs/metrics.md.
	Help string
}

// Open returns a label whose values are not known beforehand.
func Open(name, help string) Label { return Label{Name: name, Help: help} }

// Closed returns a label that takes just these values, in this order.
func Closed(name string, values ...string) Label {
	return Label{Name: name, Values: append([]string{}, values...)}
}

func (l Label) check() error {
	if !model.LegacyValidation.IsValidLabelName(l.Name) {
		return fmt.Errorf("label %q: a name is made of letters, digits and _", l.Name)
	}
	if l.Values == nil {
		return nil
	}
	if len(l.Values) == 0 {
		return fmt.Errorf("label %s is closed and has no values", l.Name)
	}
	for i, v := range l.Values {
		if Clean(v) != v {
			return fmt.Errorf("label %s: value %q is not clean", l.Name, v)
		}
		if slices.Contains(l.Values[:i], v) {
			return fmt.Errorf("label %s: value %q comes twice", l.Name, v)
		}
	}
	return nil
}

// Metric is one declared metric. Build it with New; it is immutable after
// that and safe for concurrent use.
type Metric struct {
	Name   string
	Help   string
	Kind   Kind
	Labels []Label
	// Sparse metrics do not start with 0 for every label set: they have one
	// series for the present state only (up and *_info).
	Sparse bool
	// Legacy metrics carry the fixed names of the earlier exporter; a Batch
	// can leave them out.
	Legacy bool

	desc *prometheus.Desc
	// order holds the positions of the labels sorted by name, which is how
	// Prometheus wants them in a series.
	order []int
}

// New declares a metric whose closed label sets are all present from the
// first scrape. It panics on a name or label that Prometheus refuses, on a
// help that is missing, and on a closed label without values, with one that
// comes twice or one that Clean would change: the tables are literals, so
// each of these is a programming error.
func New(kind Kind, name, help string, labels ...Label) *Metric {
	if help == "" {
		panic(fmt.Sprintf("metric %s: has no help", name))
	}
	if !model.LegacyValidation.IsValidMetricName(name) {
		panic(fmt.Sprintf("metric %q: a name is made of letters, digits and _", name))
	}
	names := make([]string, len(labels))
	for i, l := range labels {
		if err := l.check(); err != nil {
			panic(fmt.Sprintf("metric %s: %v", name, err))
		}
		names[i] = l.Name
	}
	m := &Metric{
		Name: name, Help: help, Kind: kind, Labels: labels,
		desc: prometheus.NewDesc(name, help, names, nil),
	}
	if err := m.desc.Err(); err != nil {
		panic(fmt.Sprintf("metric %s: %v", name, err))
	}
	for i := range labels {
		m.order = append(m.order, i)
	}
	slices.SortFunc(m.order, func(a, b int) int { return strings.Compare(names[a], names[b]) })
	return m
}

// NewState declares a metric that has series for the present state only.
func NewState(name, help string, labels ...Label) *Metric {
	m := New(Gauge, name, help, labels...)
	m.Sparse = true
	return m
}

// NewLegacy declares a gauge with a fixed name of the earlier exporter. It has
// series for the present state only.
func NewLegacy(name, help string, labels ...Label) *Metric {
	m := NewState(name, help, labels...)
	m.Legacy = true
	return m
}

// Desc is the Prometheus descriptor of the metric.
func (m *Metric) Desc() *prometheus.Desc { return m.desc }

// Size is the number of series of a metric whose labels are all closed, 1 for
// one without labels, and 0 when a label is open.
func (m *Metric) Size() int {
	n := 1
	for _, l := range m.Labels {
		n *= len(l.Values)
	}
	return n
}

// LabelValues is the label set of series i of a closed metric, with the last
// label running fastest: the row-major order in which the kernel's counter
// arrays are laid out. i must be below Size.
func (m *Metric) LabelValues(i int) []string {
	out := make([]string, len(m.Labels))
	for l := len(m.Labels) - 1; l >= 0; l-- {
		n := len(m.Labels[l].Values)
		out[l] = m.Labels[l].Values[i%n]
		i /= n
	}
	return out
}
