// SPDX-License-Identifier: Apache-2.0

package topn

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/metric"
	"security-exporter/internal/metric/metrictest"
	"security-exporter/internal/sensor/event"
	"security-exporter/internal/sensor/sample"
)

// at is a clock that the test moves.
type at struct{ now time.Duration }

func (a *at) time() time.Duration { return a.now }

func (a *at) exec(path string, weight uint32) *event.Event {
	return &event.Event{Monotonic: a.now, Kind: event.Kind(abi.EventExec), Weight: weight, Executable: []byte(path)}
}

func show(top Top) string {
	var out []string
	for _, e := range top.Entries {
		name := e.Key
		if e.Container != "" {
			name = e.Container + ":" + name
		}
		out = append(out, fmt.Sprintf("%s %d", name, e.Count))
	}
	return strings.Join(out, ", ")
}

func index(t *testing.T, of []string, name string) uint8 {
	t.Helper()
	i := slices.Index(of, name)
	if i < 0 {
		t.Fatalf("no %q", name)
	}
	return uint8(i)
}

func TestObserve(t *testing.T) {
	t.Parallel()
	peer := netip.MustParseAddrPort
	success, failure := index(t, abi.Results, "success"), index(t, abi.Results, "failure")
	for _, c := range []struct {
		name string
		e    event.Event
		want map[By]string
	}{
		{"exec", event.Event{Kind: event.Kind(abi.EventExec), Executable: []byte("/bin/sh"), Comm: []byte("x")},
			map[By]string{Exec: "c:/bin/sh 3"}},
		{"exec without a path", event.Event{Kind: event.Kind(abi.EventExec), Comm: []byte("sh")},
			map[By]string{Exec: "c:[sh] 3"}},
		{"exec of nobody", event.Event{Kind: event.Kind(abi.EventExec)}, map[By]string{Exec: "c:unknown 3"}},
		{"exit", event.Event{Kind: event.Kind(abi.EventExit), Executable: []byte("/bin/sh")}, nil},
		{"IPv4", event.Event{Kind: event.Kind(abi.EventConnect), Executable: []byte("/bin/nc"), Peer: peer("192.0.2.1:443")},
			map[By]string{Connect: "c:192.0.2.1 3", ConnectProcess: "c:/bin/nc 3"}},
		{"IPv4 mapped", event.Event{Kind: event.Kind(abi.EventConnect), Executable: []byte("/bin/nc"), Peer: peer("[::ffff:192.0.2.1]:443")},
			map[By]string{Connect: "c:192.0.2.1 3", ConnectProcess: "c:/bin/nc 3"}},
		{"IPv6 with a zone", event.Event{Kind: event.Kind(abi.EventConnect), Executable: []byte("/bin/nc"), Peer: peer("[fe80::1%eth0]:443")},
			map[By]string{Connect: "c:fe80::1 3", ConnectProcess: "c:/bin/nc 3"}},
		{"connection without a peer", event.Event{Kind: event.Kind(abi.EventConnect), Executable: []byte("/bin/nc")},
			map[By]string{ConnectProcess: "c:/bin/nc 3"}},
		{"connection that failed", event.Event{Kind: event.Kind(abi.EventConnectError), Executable: []byte("/bin/nc"), Peer: peer("192.0.2.1:443")}, nil},
		{"file", event.Event{Kind: event.Kind(abi.EventFile), Executable: []byte("/bin/cat"), Name: []byte("/etc/shadow")},
			map[By]string{File: "c:/etc/shadow 3", FileProcess: "c:/bin/cat 3"}},
		{"file without a name", event.Event{Kind: event.Kind(abi.EventFile), Executable: []byte("/bin/cat")},
			map[By]string{FileProcess: "c:/bin/cat 3"}},
		{"privilege", event.Event{Kind: event.Kind(abi.EventPrivilege), Executable: []byte("/bin/su"), Result: success},
			map[By]string{Privilege: "c:/bin/su 3"}},
		{"privilege refused", event.Event{Kind: event.Kind(abi.EventPrivilege), Executable: []byte("/bin/su"), Result: failure}, nil},
		{"gain by the call that counted already", event.Event{Kind: event.Kind(abi.EventGain), Executable: []byte("/bin/su"), Gain: index(t, abi.Gains, "set_id")}, nil},
		{"gain by a user namespace", event.Event{Kind: event.Kind(abi.EventGain), Executable: []byte("/bin/unshare"), Gain: index(t, abi.Gains, "userns")},
			map[By]string{Privilege: "c:/bin/unshare 3"}},
		{"gain by no call", event.Event{Kind: event.Kind(abi.EventGain), Executable: []byte("/bin/x"), Gain: index(t, abi.Gains, "other")},
			map[By]string{Privilege: "c:/bin/x 3"}},
		{"module", event.Event{Kind: event.Kind(abi.EventModule), Executable: []byte("/bin/kmod"), Name: []byte("evil")}, nil},
		{"no such kind", event.Event{Kind: 200, Executable: []byte("/bin/kmod")}, nil},
	} {
		clock := &at{now: time.Hour}
		r := New(Options{Now: clock.time})
		c.e.Weight, c.e.Monotonic = 3, clock.now
		r.Observe(&c.e, "c")
		for by := range byCount {
			if got := show(r.Top(by, 10, r.Window())); got != c.want[by] {
				t.Errorf("%s: by %v: %q, want %q", c.name, by, got, c.want[by])
			}
		}
	}
}

func TestWindowSlides(t *testing.T) {
	t.Parallel()
	clock := &at{now: 100 * time.Hour}
	r := New(Options{Window: 10 * time.Minute, Now: clock.time})
	if r.Granularity() != time.Minute {
		t.Fatalf("granularity %v", r.Granularity())
	}
	r.Observe(clock.exec("/old", 5), "")
	for _, c := range []struct {
		pass           time.Duration
		exec           string
		window, minute string
		total          string
	}{
		{0, "/new", "/old 5, /new 1", "/old 5, /new 1", "/old 5, /new 1"},
		{time.Minute, "/new", "/old 5, /new 2", "/new 1", "/old 5, /new 2"},
		{8*time.Minute + 59*time.Second, "", "/old 5, /new 2", "", "/old 5, /new 2"},
		// Ten parts on, the part of the first two is the one to be reused.
		{time.Second, "", "/new 1", "", "/old 5, /new 2"},
		{time.Minute, "", "", "", "/old 5, /new 2"},
		{1000 * time.Hour, "/new", "/new 1", "/new 1", "/old 5, /new 3"},
		{-time.Hour, "/late", "/late 1, /new 1", "/late 1, /new 1", "/old 5, /new 3, /late 1"},
	} {
		clock.now += c.pass
		if c.exec != "" {
			r.Observe(clock.exec(c.exec, 1), "")
		}
		if got := show(r.Top(Exec, 10, 10*time.Minute)); got != c.window {
			t.Errorf("after %v: window %q, want %q", c.pass, got, c.window)
		}
		if got := show(r.Top(Exec, 10, time.Second)); got != c.minute {
			t.Errorf("after %v: minute %q, want %q", c.pass, got, c.minute)
		}
		if got := show(r.Top(Exec, 10, 0)); got != c.total {
			t.Errorf("after %v: total %q, want %q", c.pass, got, c.total)
		}
	}
	for span, want := range map[time.Duration]time.Duration{
		0: 0, -1: 0, 1: time.Minute, time.Minute: time.Minute, time.Minute + 1: 2 * time.Minute,
		time.Hour: 10 * time.Minute, math.MaxInt64 - time.Hour: 10 * time.Minute,
	} {
		if got := r.Top(Exec, 10, span).Span; got != want {
			t.Errorf("span of %v: %v, want %v", span, got, want)
		}
	}
}

// Without a clock of a test's it is the kernel's, as in events.
func TestKernelClock(t *testing.T) {
	t.Parallel()
	r := New(Options{Window: MinWindow})
	clock := &at{now: r.now() - MinWindow/2}
	r.Observe(clock.exec("/a", 1), "")
	if got := show(r.Top(Exec, 1, MinWindow)); got != "/a 1" {
		t.Errorf("half a window later: %q", got)
	}
	if got := show(r.Top(Exec, 1, MinWindow/subWindows)); got != "" {
		t.Errorf("in the last tenth: %q", got)
	}
}

func TestTopCuts(t *testing.T) {
	t.Parallel()
	clock := &at{}
	r := New(Options{Now: clock.time})
	for i, path := range []string{"/a", "/b", "/c"} {
		r.Observe(clock.exec(path, uint32(30-i)), "")
	}
	r.Observe(clock.exec("/a", 1), "web")
	for n, want := range map[int]string{
		-1: "", 0: "", 1: "/a 30", 3: "/a 30, /b 29, /c 28", 9: "/a 30, /b 29, /c 28, web:/a 1",
	} {
		if got := show(r.Top(Exec, n, time.Hour)); got != want {
			t.Errorf("top %d: %q, want %q", n, got, want)
		}
	}
	if top := r.Top(Exec, 2, time.Hour); top.Rest != 28 || top.Total != 88 {
		t.Errorf("rest %d of %d, want 28 of 88", top.Rest, top.Total)
	}
}

// Different bytes that look the same as labels are one series, with the sums.
func TestSameLabelIsOneEntry(t *testing.T) {
	t.Parallel()
	clock := &at{}
	r := New(Options{Now: clock.time})
	long := "/" + strings.Repeat("x", 127)
	for _, c := range []struct{ key, container string }{
		{"/a\xff", ""}, {"/a\xfe", ""}, {"/a\n", ""}, {"/a\x1b", ""},
		{long + "1", ""}, {long + "2", ""}, {long, ""},
		{"/b", "c\x01"}, {"/b", "c\x02"}, {"/b", strings.Repeat("y", 64) + "1"}, {"/b", strings.Repeat("y", 64) + "2"},
	} {
		r.Observe(clock.exec(c.key, 1), c.container)
	}
	got := show(r.Top(Exec, 10, time.Hour))
	want := "/a\uFFFD 4, " + long + " 3, c\uFFFD:/b 2, " + strings.Repeat("y", 64) + ":/b 2"
	if got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func gather(t *testing.T, m Metrics, r *Rankings, n int) map[string][]*dto.Metric {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(page{m, r, n})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]*dto.Metric{}
	for _, f := range families {
		out[f.GetName()] = f.GetMetric()
	}
	return out
}

type page struct {
	m Metrics
	r *Rankings
	n int
}

func (p page) Describe(ch chan<- *prometheus.Desc) {
	for _, row := range p.m.Table() {
		ch <- row.Desc()
	}
}

func (p page) Collect(ch chan<- prometheus.Metric) {
	batch := metric.NewBatch(0)
	p.m.Add(batch, p.r, p.n)
	batch.Fill(p.m.Table())
	batch.Collect(ch)
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	clock := &at{now: time.Hour}
	m, r := NewMetrics(), New(Options{Capacity: 8, Now: clock.time})
	if problems, err := metrictest.LintTable(m.Table()); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	for i := range 20 {
		r.Observe(clock.exec(fmt.Sprintf("/bin/%02d\n", i), uint32(1+i)), "web")
	}
	got := gather(t, m, r, 3)
	if n := len(got["security_ebpf_top_exec"]); n != 3 {
		t.Errorf("%d series, want 3", n)
	}
	if n := len(got["security_ebpf_top_error"]); n != int(byCount) {
		t.Errorf("%d bounds, want %d", n, byCount)
	}
	for _, row := range got["security_ebpf_top_exec"] {
		labels := map[string]string{}
		for _, l := range row.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		if !strings.HasPrefix(labels["key"], "/bin/") || !strings.HasSuffix(labels["key"], "\uFFFD") || labels["container"] != "web" || len(labels) != 2 {
			t.Errorf("labels %v", labels)
		}
	}
	// Nothing is left of a key that leaves the window.
	clock.now += 10 * time.Minute
	if got := gather(t, m, r, 3); len(got["security_ebpf_top_exec"]) != 0 || got["security_ebpf_top_error"][0].GetGauge().GetValue() != 0 {
		t.Errorf("after the window: %v", got["security_ebpf_top_exec"])
	}
}

// What comes in through the adaptive sampler, with weights, has the right
// first ten, and no count is farther from the truth than the bound says.
func TestZipfThroughTheSampler(t *testing.T) {
	t.Parallel()
	const keys, perSecond, seconds, top = 100_000, 50_000, 60, 10
	random := rand.New(rand.NewPCG(1, 2))
	zipf := rand.NewZipf(random, 1.1, 1, keys-1)
	clock := &at{now: 17 * time.Hour}
	r := New(Options{Window: 10 * time.Second * subWindows, Now: clock.time})
	sampler := sample.New(sample.Settings{Rate: 1, Target: 5000})
	truth := make([]uint64, keys)
	kept := uint64(0)
	var e event.Event
	e.Kind = event.Kind(abi.EventExec)
	for i := range perSecond * seconds {
		clock.now += time.Second / perSecond
		if i%perSecond == 0 {
			sampler.Tick(time.Unix(0, int64(clock.now)), kept)
		}
		key := zipf.Uint64()
		truth[key]++
		rate := sampler.Rate()
		if random.Uint32N(rate) != 0 {
			continue
		}
		kept++
		e.Monotonic, e.Weight = clock.now, rate
		e.Executable = fmt.Appendf(e.Executable[:0], "/bin/%d", key)
		r.Observe(&e, "")
	}
	if rate := sampler.Rate(); rate != 8 {
		t.Errorf("the sampler ended at 1 in %d, want 8", rate)
	}
	for _, span := range []time.Duration{0, r.Window()} {
		got := r.Top(Exec, DefaultCapacity, span)
		if off := math.Abs(float64(got.Total) - perSecond*seconds); off > 3*math.Sqrt(8*perSecond*seconds) {
			t.Errorf("span %v: total %d, want about %d", span, got.Total, perSecond*seconds)
		}
		for place, e := range got.Entries {
			var key int
			if _, err := fmt.Sscanf(e.Key, "/bin/%d", &key); err != nil {
				t.Fatal(err)
			}
			if place < top && key != place {
				t.Errorf("span %v: place %d has key %d", span, place, key)
			}
			if off := math.Abs(float64(e.Count) - float64(truth[key])); off > e.Bound() {
				t.Errorf("span %v: key %d: %d, truth %d, bound %.0f", span, key, e.Count, truth[key], e.Bound())
			}
			if e.Error > got.Total/DefaultCapacity {
				t.Errorf("span %v: key %d: error %d of %d", span, key, e.Error, got.Total)
			}
		}
		// Not so wide that it says nothing: the first ten stand out.
		if first := got.Entries[0]; first.Bound() > float64(first.Count)/20 {
			t.Errorf("span %v: first %d, bound %.0f", span, first.Count, first.Bound())
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	clock := &at{now: time.Hour}
	r := New(Options{Capacity: 10, Now: clock.time})
	const events = 20_000
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for by := range byCount {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				sum := uint64(0)
				top := r.Top(by, 10, 0)
				for _, e := range top.Entries {
					sum += e.Count - e.Error
				}
				if sum > top.Total {
					t.Errorf("by %v: %d of %d", by, sum, top.Total)
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	// There is a reader for each ring of the kernel.
	var writers sync.WaitGroup
	for range 2 {
		writers.Go(func() {
			for i := range events / 2 {
				e := clock.exec(fmt.Sprint(i%37), 2)
				e.Kind = event.Kind([]uint8{uint8(abi.EventExec), uint8(abi.EventFile), uint8(abi.EventConnect)}[i%3])
				e.Monotonic += time.Duration(i) * time.Millisecond * 100
				r.Observe(e, "c")
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	if total := r.Top(FileProcess, 1, 0).Total; total != 2*2*(events/2/3) {
		t.Errorf("total %d", total)
	}
}

// Any bytes: labels are clean and unlike each other, and the sums are right.
func FuzzRankings(f *testing.F) {
	f.Add([]byte("/bin/sh\n/bin/\xff\n/bin/\xfe\n\x00"), "web")
	f.Fuzz(func(t *testing.T, text []byte, container string) {
		clock := &at{now: time.Hour}
		const capacity = 32
		r := New(Options{Capacity: capacity, Now: clock.time})
		truth := map[[2]string]uint64{}
		for _, line := range bytes.SplitN(text, []byte("\n"), capacity) {
			e := clock.exec(string(line), uint32(1+len(line)%3))
			r.Observe(e, container)
			key := "unknown"
			if len(line) > 0 {
				key = string(line)
			}
			truth[[2]string{metric.Clean(key), metric.Clean(container[:min(len(container), maxContainer)])}] += uint64(e.Weight)
		}
		got := map[[2]string]uint64{}
		for _, e := range r.Top(Exec, capacity, time.Hour).Entries {
			if !utf8.ValidString(e.Key) || len(e.Key) > metric.MaxValueBytes || len(e.Container) > metric.MaxValueBytes || e.Error != 0 {
				t.Fatalf("entry %+v", e)
			}
			got[[2]string{e.Key, e.Container}] += e.Count
		}
		if !maps.Equal(got, truth) {
			t.Fatalf("%v, want %v", got, truth)
		}
	})
}

func flood(n int) []event.Event {
	events := make([]event.Event, n)
	for i := range events {
		key := binary.BigEndian.AppendUint32([]byte("/usr/bin/"), uint32(i)*2654435761)
		events[i] = event.Event{Kind: event.Kind(abi.EventConnect), Weight: 1, Executable: key,
			Peer: netip.AddrPortFrom(netip.AddrFrom4([4]byte(key[9:])), 443)}
	}
	return events
}

func TestObserveAllocatesNothing(t *testing.T) {
	clock := &at{now: time.Hour}
	r := New(Options{Now: clock.time})
	events, i := flood(1<<14), 0
	if n := testing.AllocsPerRun(1<<14-1, func() {
		r.Observe(&events[i%len(events)], "container")
		i++
	}); n != 0 {
		t.Errorf("%v allocations for each event", n)
	}
}

// The worst case: two rankings for each event, each key new.
func BenchmarkObserve(b *testing.B) {
	clock := &at{now: time.Hour}
	r := New(Options{Now: clock.time})
	events := flood(1 << 14)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		r.Observe(&events[i&(1<<14-1)], "container")
	}
}

func BenchmarkScrape(b *testing.B) {
	clock := &at{now: time.Hour}
	r := New(Options{Now: clock.time})
	events := flood(1 << 14)
	for i := range 11_000 {
		events[i].Monotonic = clock.now + time.Duration(i)*time.Minute/1000
		r.Observe(&events[i], "container")
	}
	clock.now += 10 * time.Minute
	m := NewMetrics()
	b.ResetTimer()
	for range b.N {
		m.Add(metric.NewBatch(0), r, 10)
	}
}
