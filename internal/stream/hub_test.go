// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"security-exporter/internal/sensor/event"
)

// next returns the records that wait.
func next(t *testing.T, s *Subscriber) []Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	batch, err := s.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var out []Record
	for line := range bytes.Lines(batch) {
		out = append(out, decode(t, line))
	}
	return out
}

func names(records []Record) string {
	var out []string
	for _, r := range records {
		out = append(out, r.Kind())
	}
	return strings.Join(out, " ")
}

func TestHubFilters(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kinds, classes []string
		severity, want string
	}{
		{nil, nil, "", "exec exit connect connect_error file privilege gain module"},
		{[]string{"exec,file"}, nil, "", "exec file"},
		{[]string{"exec", "file"}, nil, "", "exec file"},
		{nil, nil, "warning", "exec connect_error file gain module"},
		{nil, nil, "critical", "exec gain module"},
		{nil, []string{"suspicious"}, "", "exec"},
		{nil, []string{"user"}, "warning", "connect_error file gain"},
		{[]string{"module"}, []string{"system", "user", "container", "suspicious"}, "", ""},
	} {
		f, err := NewFilter(c.kinds, c.classes, c.severity)
		if err != nil {
			t.Fatal(err)
		}
		h := NewHub()
		s := h.Subscribe(OutputAPI, f, DefaultQueue)
		all := h.Subscribe(OutputAPI, Filter{Kinds: 1 << 7}, DefaultQueue)
		for _, ev := range testEvents() {
			h.Publish(&ev, nil)
		}
		if got := names(next(t, all)); got != "module" {
			t.Errorf("the second reader got %q", got)
		}
		if c.want == "" {
			if len(s.queue) > 0 {
				t.Errorf("%v: got %s", c, s.queue)
			}
			continue
		}
		if got := names(next(t, s)); got != c.want {
			t.Errorf("%v: got %q", c, got)
		}
	}
}

func TestNewFilterRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind, class, severity, want string
	}{
		{"exe", "", "", `unknown kind "exe", want exec, exit, connect, connect_error, file, privilege, gain, module`},
		{"lost", "", "", `unknown kind "lost", want exec, exit, connect, connect_error, file, privilege, gain, module`},
		{"exec,", "", "", `unknown kind "", want exec, exit, connect, connect_error, file, privilege, gain, module`},
		{"exec", "root", "", `unknown class "root", want system, user, container, suspicious`},
		{"exec", "user", "high\n", `unknown min_severity "high\n", want info, warning, critical`},
	} {
		var classes []string
		if c.class != "" {
			classes = []string{c.class}
		}
		if _, err := NewFilter([]string{c.kind}, classes, c.severity); err == nil || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

// A reader that does not read loses exactly what it did not get, is told so
// where the gap is, and another one loses nothing.
func TestHubSlowReader(t *testing.T) {
	t.Parallel()
	h := NewHub()
	slow := h.Subscribe(OutputFile, Filter{}, 4096)
	fast := h.Subscribe(OutputAPI, Filter{}, 1<<20)
	ev := testEvents()[1]
	const total = 1000
	for range total {
		h.Publish(&ev, nil)
	}
	if got := len(next(t, fast)); got != total {
		t.Errorf("the fast reader got %d", got)
	}
	first := next(t, slow)
	kept := len(first) - 1
	gap := first[kept]
	if kept < 2 || gap.EventName != "security.lost" || gap.LostRecords != uint64(total-kept) || gap.LostEvents != uint64(total-kept)*3 {
		t.Errorf("%d kept, then %+v", kept, gap)
	}
	for _, r := range first[:kept] {
		if r.Kind() != "exit" {
			t.Errorf("%+v before the gap", r)
		}
	}
	h.Publish(&ev, nil)
	if got := names(next(t, slow)); got != "exit" {
		t.Errorf("after the gap: %s", got)
	}
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(h)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range families[0].GetMetric() {
		want := map[string]int{"stdout": 0, "file": total - kept, "api": 0}[m.GetLabel()[0].GetValue()]
		if m.GetCounter().GetValue() != float64(want) {
			t.Errorf("%v, want %d", m, want)
		}
	}
	if n := len(families[0].GetMetric()); n != 3 {
		t.Errorf("%d series", n)
	}
}

// A line that does not fit an empty queue is a loss too, and wakes the reader.
func TestHubLineTooLong(t *testing.T) {
	t.Parallel()
	h := NewHub()
	s := h.Subscribe(OutputAPI, Filter{}, 10)
	ev := testEvents()[0]
	h.Publish(&ev, nil)
	if got := next(t, s); len(got) != 1 || got[0].LostRecords != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestHubNextEnds(t *testing.T) {
	t.Parallel()
	h := NewHub()
	s := h.Subscribe(OutputAPI, Filter{}, 10)
	if !h.Active() {
		t.Error("not active with a reader")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := s.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	s.Close()
	s.Close()
	if h.Active() {
		t.Error("active without a reader")
	}
}

func TestHubConcurrent(t *testing.T) {
	t.Parallel()
	h := NewHub()
	const writers, each = 4, 2000
	s := h.Subscribe(OutputAPI, Filter{}, 1<<16)
	var writing sync.WaitGroup
	for range writers {
		writing.Go(func() {
			ev := testEvents()[0]
			for range each {
				h.Publish(&ev, nil)
			}
		})
	}
	ev := testEvents()[0]
	for range 20 { // readers that come and go
		other := h.Subscribe(OutputAPI, Filter{}, 1<<12)
		h.Publish(&ev, nil)
		next(t, other)
		other.Close()
	}
	writing.Wait()
	var got uint64
	for got < writers*each+20 {
		for _, r := range next(t, s) {
			if r.Kind() == KindLost {
				got += r.LostRecords
			} else {
				got++
			}
		}
	}
	if got != writers*each+20 {
		t.Errorf("%d kept and lost, want %d", got, writers*each+20)
	}
}

func TestPublishDoesNotAllocate(t *testing.T) {
	h := NewHub()
	ev := testEvents()[0]
	publish := func() { h.Publish(&ev, nil) }
	if n := testing.AllocsPerRun(100, publish); n != 0 {
		t.Errorf("%v allocations without a reader", n)
	}
	s := h.Subscribe(OutputAPI, Filter{MinSeverity: event.Critical}, 1<<14)
	for range 200 { // until both buffers have their size
		publish()
	}
	for range 2 {
		next(t, s)
		for range 200 {
			publish()
		}
	}
	if n := testing.AllocsPerRun(100, func() {
		publish()
		if _, err := s.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations with a reader", n)
	}
}

func BenchmarkPublishNobody(b *testing.B) {
	h := NewHub()
	ev := testEvents()[0]
	b.ReportAllocs()
	for b.Loop() {
		h.Publish(&ev, nil)
	}
}
