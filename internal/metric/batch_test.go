// SPDX-License-Identifier: Apache-2.0

package metric

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// row is one series in a form that compares.
func rows(t testing.TB, b *Batch) []string {
	t.Helper()
	ch := make(chan prometheus.Metric, b.Len())
	b.Collect(ch)
	close(ch)
	var out []string
	for m := range ch {
		var d dto.Metric
		if err := m.Write(&d); err != nil {
			t.Fatal(err)
		}
		var labels []string
		for _, l := range d.GetLabel() {
			labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
		}
		v := d.GetGauge().GetValue()
		if d.Counter != nil {
			v = d.GetCounter().GetValue()
		}
		out = append(out, fmt.Sprintf("{%s} %v", strings.Join(labels, ","), v))
	}
	return out
}

func wantRows(t *testing.T, b *Batch, want ...string) {
	t.Helper()
	if got := rows(t, b); !slices.Equal(got, want) {
		t.Errorf("rows\n got %q\nwant %q", got, want)
	}
}

func TestBatchDropsDuplicates(t *testing.T) {
	t.Parallel()
	m := New(Gauge, "x", "An x.", Open("a", ""), Open("b", ""))
	b := NewBatch(0)
	b.Add(m, 1, "p", "q")
	b.Add(m, 2, "p", "q")
	b.Add(m, 3, "p", "\x01")
	b.Add(m, 4, "p", "\x02") // the same after cleaning
	b.Add(m, 5, "p\x00q", "")
	b.Add(m, 6, "p", "q\x00")
	b.Add(m, 7, "pq", "")
	b.Add(m, 8, "", "pq")
	wantRows(t, b, `{a="p",b="q"} 1`, `{a="p",b="`+"�"+`"} 3`, `{a="p`+"�"+`q",b=""} 5`,
		`{a="p",b="q`+"�"+`"} 6`, `{a="pq",b=""} 7`, `{a="",b="pq"} 8`)
	if b.Dropped() != 0 {
		t.Errorf("a duplicate is no drop, got %d", b.Dropped())
	}
}

func TestBatchKeepsMetricsApart(t *testing.T) {
	t.Parallel()
	a, c := New(Gauge, "a", "An a."), New(Counter, "c_total", "A c.")
	b := NewBatch(0)
	b.Add(a, 1)
	b.Add(c, 2)
	b.Add(a, 3)
	wantRows(t, b, `{} 1`, `{} 2`)
}

func TestBatchLimit(t *testing.T) {
	t.Parallel()
	m := New(Gauge, "x", "An x.", Open("a", ""))
	b := NewBatch(2)
	for _, v := range []string{"1", "2", "2", "3", "4", "1"} {
		b.Add(m, 0, v)
	}
	wantRows(t, b, `{a="1"} 0`, `{a="2"} 0`)
	if b.Len() != 2 || b.Dropped() != 2 {
		t.Errorf("len %d dropped %d, want 2 and 2", b.Len(), b.Dropped())
	}
}

func TestBatchClosedSet(t *testing.T) {
	t.Parallel()
	m := New(Counter, "x_total", "An x.", Closed("a", "p", "q"))
	for _, values := range [][]string{{"r"}, {""}, {"p "}, {}, {"p", "q"}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("values %q were taken", values)
				}
			}()
			NewBatch(0).Add(m, 1, values...)
		}()
	}
}

func TestBatchFill(t *testing.T) {
	t.Parallel()
	table := []*Metric{
		New(Counter, "x_total", "An x.", Closed("a", "p", "q"), Closed("b", "1", "2")),
		New(Gauge, "n", "An n."),
		New(Gauge, "open", "Open.", Open("a", "")),
		NewState("state", "A state.", Closed("s", "on", "off")),
	}
	b := NewBatch(0)
	b.Add(table[0], 7, "q", "1")
	b.Add(table[3], 1, "off")
	b.Fill(table)
	wantRows(t, b, `{a="q",b="1"} 7`, `{s="off"} 1`,
		`{a="p",b="1"} 0`, `{a="p",b="2"} 0`, `{a="q",b="2"} 0`, `{} 0`)
}

func TestBatchBool(t *testing.T) {
	t.Parallel()
	m := New(Gauge, "x", "An x.", Open("a", ""))
	b := NewBatch(0)
	b.Bool(m, true, "t")
	b.Bool(m, false, "f")
	wantRows(t, b, `{a="t"} 1`, `{a="f"} 0`)
}

func TestBatchLeavesItsInputAlone(t *testing.T) {
	t.Parallel()
	m := New(Gauge, "x", "An x.", Open("a", ""), Open("b", ""))
	values := []string{"\x01", "\x02"}
	NewBatch(0).Add(m, 1, values...)
	if !slices.Equal(values, []string{"\x01", "\x02"}) {
		t.Errorf("values became %q", values)
	}
}

func TestLabelValuesOrder(t *testing.T) {
	t.Parallel()
	m := New(Counter, "x_total", "An x.", Closed("a", "p", "q"), Closed("b", "1", "2", "3"))
	var got []string
	for i := range m.Size() {
		got = append(got, strings.Join(m.LabelValues(i), ""))
	}
	if want := []string{"p1", "p2", "p3", "q1", "q2", "q3"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNewRefusesBadNames(t *testing.T) {
	t.Parallel()
	for name, build := range map[string]func(){
		"empty name":      func() { New(Gauge, "", "A.") },
		"empty label":     func() { New(Gauge, "x", "A.", Open("", "")) },
		"label twice":     func() { New(Gauge, "x", "A.", Open("a", ""), Open("a", "")) },
		"reserved label":  func() { New(Gauge, "x", "A.", Open("__a", "")) },
		"invalid UTF-8":   func() { New(Gauge, "x\xff", "A.") },
		"name with space": func() { New(Gauge, "x y", "A.") },
		"value twice":     func() { New(Gauge, "x", "A.", Closed("a", "p", "p")) },
		"unclean value":   func() { New(Gauge, "x", "A.", Closed("a", "p\n")) },
		"no values":       func() { New(Gauge, "x", "A.", Closed("a")) },
		"empty help":      func() { New(Gauge, "x", "") },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: was taken", name)
				}
			}()
			build()
		}()
	}
}

func FuzzBatchAdd(f *testing.F) {
	f.Add("a", "b", "a", "b")
	f.Add("\xff", strings.Repeat("é", 100), "a\x00", "b")
	f.Fuzz(func(t *testing.T, a1, b1, a2, b2 string) {
		m := New(Gauge, "x", "An x.", Open("a", ""), Open("b", ""))
		b := NewBatch(0)
		b.Add(m, 1, a1, b1)
		b.Add(m, 2, a2, b2)
		same := Clean(a1) == Clean(a2) && Clean(b1) == Clean(b2)
		if got := len(rows(t, b)); same != (got == 1) {
			t.Errorf("%q %q and %q %q gave %d rows", a1, b1, a2, b2, got)
		}
		reg := prometheus.NewPedanticRegistry()
		reg.MustRegister(one{m, b})
		if _, err := reg.Gather(); err != nil {
			t.Error(err)
		}
	})
}

// one is a collector of one metric.
type one struct {
	m *Metric
	b *Batch
}

func (o one) Describe(ch chan<- *prometheus.Desc) { ch <- o.m.Desc() }
func (o one) Collect(ch chan<- prometheus.Metric) { o.b.Collect(ch) }

func BenchmarkBatchAdd(b *testing.B) {
	m := New(Gauge, "linux_security_ports_use_info", "A port.", Open("protocol", ""), Open("local_ip", ""),
		Open("local_port", ""), Open("state", ""), Open("process", ""), Open("exe_path", ""))
	ports := make([]string, 1500)
	for i := range ports {
		ports[i] = fmt.Sprint(i)
	}
	b.ReportAllocs()
	for b.Loop() {
		batch := NewBatch(2000)
		for _, p := range ports {
			batch.Add(m, 1, "tcp", "*", p, "LISTEN", "nginx", "/usr/sbin/nginx")
		}
	}
}

func BenchmarkGather(b *testing.B) {
	m := New(Gauge, "linux_security_ports_use_info", "A port.", Open("protocol", ""), Open("local_ip", ""),
		Open("local_port", ""), Open("state", ""), Open("process", ""), Open("exe_path", ""))
	batch := NewBatch(2000)
	for i := range 1500 {
		batch.Add(m, 1, "tcp", "*", fmt.Sprint(i), "LISTEN", "nginx", "/usr/sbin/nginx")
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(one{m, batch})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := reg.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFillRuntime(b *testing.B) {
	var table []*Metric
	for i := range 13 {
		table = append(table, New(Counter, fmt.Sprintf("security_ebpf_x%d_total", i), "An x.",
			Closed("a", "system", "user", "container", "suspicious"), Closed("b", "success", "failure")))
	}
	b.ReportAllocs()
	for b.Loop() {
		NewBatch(0).Fill(table)
	}
}
