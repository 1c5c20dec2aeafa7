// SPDX-License-Identifier: Apache-2.0

package metric

import (
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// dump renders the series of a batch as label values and value, sorted.
func dump(t *testing.T, b *Batch) []string {
	t.Helper()
	ch := make(chan prometheus.Metric, b.Len())
	b.Collect(ch)
	close(ch)
	var out []string
	for row := range ch {
		var m dto.Metric
		if err := row.Write(&m); err != nil {
			t.Fatal(err)
		}
		s := ""
		for _, l := range m.GetLabel() {
			s += l.GetValue() + " "
		}
		out = append(out, s+map[float64]string{0: "0", 1: "1"}[m.GetGauge().GetValue()])
	}
	slices.Sort(out)
	return out
}

func TestOneOf(t *testing.T) {
	t.Parallel()
	m := New(Gauge, "x_state", "State.", Open("a", "Name."), Closed("b", "on", "off"))
	b := NewBatch(0)
	b.OneOf(m, "off", "n")
	if got, want := dump(t, b), []string{"n off 1", "n on 0"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestSkipLegacy(t *testing.T) {
	t.Parallel()
	m := NewLegacy("x_info", "Old.")
	for _, skip := range []bool{false, true} {
		b := NewBatch(0)
		b.SkipLegacy = skip
		b.Add(m, 1)
		if want := map[bool]int{false: 1, true: 0}[skip]; b.Len() != want {
			t.Errorf("skip %v: %d series, want %d", skip, b.Len(), want)
		}
	}
}
