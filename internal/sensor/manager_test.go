// SPDX-License-Identifier: Apache-2.0

package sensor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/testkit"
)

// run starts a manager and closes it with the test.
func run(t testing.TB, options Options) *Manager {
	t.Helper()
	m := New(options)
	m.Start(t.Context())
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func quiet(t testing.TB) slog.Handler { return slog.NewTextHandler(t.Output(), nil) }

func TestDisabled(t *testing.T) {
	t.Parallel()
	options := defaults(quiet(t))
	options.Enabled = false
	p := mustScrape(t, run(t, options))
	p.expectUp(t, "disabled", 0)
	for _, name := range abi.Probes {
		p.expectProbe(t, name, "not_applicable", "disabled")
	}
	for key, value := range p {
		if value != 0 && !strings.HasPrefix(key, "security_ebpf_probe_info{") && key != "security_ebpf_sample_rate" {
			t.Errorf("%s is %v", key, value)
		}
	}
}

func TestEachProbeAlone(t *testing.T) {
	testkit.RequireBPF(t)
	for _, name := range Names() {
		t.Run(name, func(t *testing.T) {
			m := run(t, defaults(quiet(t), name))
			p := mustScrape(t, m)
			for _, other := range Names() {
				if other != name {
					p.expectProbe(t, other, "not_applicable", "disabled")
				}
			}
			if state, reason, _ := p.info(name); reason == string(probe.ReasonNoModuleSupport) {
				p.expectUp(t, "degraded", 0)
			} else if p.expectUp(t, "active", 1); state != "attached" {
				t.Errorf("%s: %s, %s", name, state, reason)
			}
		})
	}
}

// TestWhole starts all probes, with scrapes from before the start to after the
// end, and looks for what is left.
func TestWhole(t *testing.T) {
	testkit.RequireBPF(t)
	m := New(defaults(quiet(t)))
	before := pinned(t)
	stop := make(chan struct{})
	var scrapers sync.WaitGroup
	for range 8 {
		scrapers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				p, err := scrape(m)
				if err != nil {
					t.Error(err)
					return
				}
				if problems := p.problems(m); problems != nil {
					t.Error(problems)
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	m.Start(t.Context())
	p := mustScrape(t, m)
	p.expectUp(t, "active", 1)
	made := ids(t)
	if len(made["prog"]) == 0 || len(made["map"]) == 0 || len(made["link"]) == 0 {
		t.Fatalf("nothing was made: %v", made)
	}
	time.Sleep(200 * time.Millisecond)

	begin := time.Now()
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 1500*time.Millisecond {
		t.Errorf("Close took %v", took)
	}
	mustScrape(t, m).expectUp(t, "disabled", 0)
	if err := m.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	close(stop)
	scrapers.Wait()
	expectGone(t, made)
	if after := pinned(t); !slices.Equal(after, before) {
		t.Errorf("pinned: %v, before %v", after, before)
	}
}

func TestCloseWithoutStart(t *testing.T) {
	t.Parallel()
	m := New(defaults(quiet(t)))
	for range 2 {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestStartWithEndedContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m := New(defaults(quiet(t)))
	m.Start(ctx)
	defer m.Close()
	p := mustScrape(t, m)
	p.expectUp(t, "degraded", 0)
}

func pinned(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob("/sys/fs/bpf/*")
	if err != nil {
		t.Fatal(err)
	}
	return found
}

var idLine = regexp.MustCompile(`(?m)^(prog|map|link)_id:\s+(\d+)$`)

// ids are the kernel's numbers of the BPF objects that this process has open.
func ids(t *testing.T) map[string][]uint32 {
	t.Helper()
	files, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]uint32{}
	for _, file := range files {
		text, _ := os.ReadFile(file)
		for _, match := range idLine.FindAllStringSubmatch(string(text), -1) {
			id, err := strconv.ParseUint(match[2], 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			out[match[1]] = append(out[match[1]], uint32(id))
		}
	}
	return out
}

// expectGone waits for the kernel to free them, which it does in its own time.
func expectGone(t *testing.T, made map[string][]uint32) {
	t.Helper()
	alive := func(kind string, id uint32) bool {
		var object interface{ Close() error }
		var err error
		switch kind {
		case "prog":
			object, err = ebpf.NewProgramFromID(ebpf.ProgramID(id))
		case "map":
			object, err = ebpf.NewMapFromID(ebpf.MapID(id))
		case "link":
			object, err = link.NewFromID(link.ID(id))
		}
		if err != nil {
			return !errors.Is(err, os.ErrNotExist)
		}
		_ = object.Close()
		return true
	}
	for kind, all := range made {
		for _, id := range all {
			for deadline := time.Now().Add(10 * time.Second); alive(kind, id); time.Sleep(20 * time.Millisecond) {
				runtime.GC() // variables are mapped until then
				if time.Now().After(deadline) {
					t.Errorf("%s %d is left", kind, id)
					break
				}
			}
		}
	}
}

// TestNoCgroup2: TCP needs no cgroup, UDP does on this rung.
func TestNoCgroup2(t *testing.T) {
	testkit.RequireBPF(t)
	options := defaults(quiet(t), "network")
	options.SysFS = t.TempDir()
	m := run(t, options)
	before := mustScrape(t, m)
	if _, reason, _ := before.info("network"); reason == "none" {
		t.Skip("this kernel sees UDP without cgroups")
	}
	before.expectProbe(t, "network", "unsupported", "no_cgroup2")
	before.expectUp(t, "partial", 1)
	const n = 500
	connect(t, n)
	const out = `security_ebpf_connect_total{direction="out",protocol="tcp"}`
	if got := mustScrape(t, m)[out] - before[out]; got < n {
		t.Errorf("%v connections counted, want at least %d", got, n)
	}
}

func connect(t *testing.T, times int) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for range times {
		client, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		server, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = client.Close()
		_ = server.Close()
	}
}

// lockedBuffer is a log that several goroutines write.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) lines(with string) (out []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for line := range strings.Lines(b.text.String()) {
		if strings.Contains(line, with) {
			out = append(out, line)
		}
	}
	return out
}

// TestVerifierRefusal puts a program that reads a register nobody has set in
// the place of the kernel probe's.
func TestVerifierRefusal(t *testing.T) {
	testkit.RequireBPF(t)
	var log lockedBuffer
	m := New(defaults(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}), "kernel", "network"))
	refused := &probe.Spec{
		Index: int(abi.ProbeKernel),
		Load: func() (*ebpf.CollectionSpec, error) {
			return &ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{"refused": {
				Name: "refused", Type: ebpf.RawTracepoint, AttachTo: "sched_process_exec",
				SectionName:  "raw_tracepoint/sched_process_exec",
				Instructions: asm.Instructions{asm.Mov.Reg(asm.R0, asm.R5), asm.Return()},
				License:      "Dual BSD/GPL",
			}}}, nil
		},
		Parts: []probe.Part{{Name: "refused", Rungs: []probe.Rung{{Hook: "none", Programs: []string{"refused"}}}}},
	}
	for i, spec := range m.specs {
		if spec.Index == int(abi.ProbeKernel) {
			refused.Metrics = spec.Metrics
			m.specs[i] = refused
		}
	}
	m.Start(t.Context())
	defer m.Close()
	p := mustScrape(t, m)
	p.expectProbe(t, "kernel", "error", "verifier")
	p.expectProbe(t, "network", "attached", "none")
	p.expectUp(t, "partial", 1)
	warnings := log.lines("level=WARN")
	if len(warnings) != 1 || !strings.Contains(warnings[0], "R5 !read_ok") || !strings.Contains(warnings[0], "probe=kernel") {
		t.Errorf("warnings: %q", warnings)
	}
	if len(warnings) == 1 && strings.Contains(warnings[0], "r0 = r5") {
		t.Errorf("the warning has more than the last line: %s", warnings[0])
	}
	full := log.lines("verifier log")
	if len(full) != 1 || !strings.Contains(full[0], "level=DEBUG") || !strings.Contains(full[0], "r0 = r5") {
		t.Errorf("full log: %q", full)
	}
}

// eventLog counts the detail events that reach the log, and holds the reader
// up until the gate opens.
type eventLog struct {
	slog.Handler
	gate   chan struct{}
	mu     sync.Mutex
	counts map[string]int
	weight int64 // the sum of all
}

func (l *eventLog) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "Event" {
		return nil
	}
	<-l.gate
	l.mu.Lock()
	defer l.mu.Unlock()
	key := ""
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "probe", "kind":
			key += a.Value.String() + " "
		case "weight":
			l.weight += int64(a.Value.Uint64())
		}
		return true
	})
	l.counts[strings.TrimSpace(key)]++
	return nil
}

func (l *eventLog) count(key string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts[key]
}

func (l *eventLog) Enabled(context.Context, slog.Level) bool { return true }
func (l *eventLog) WithAttrs([]slog.Attr) slog.Handler       { return l }

// TestEvents floods the ring from one cgroup: every event produced is
// delivered, sampled out, or counted as lost.
func TestEvents(t *testing.T) {
	testkit.RequireBPF(t)
	for name, c := range map[string]struct {
		calls  int
		rate   uint32
		budget uint32
		held   bool
		lost   string // the one reason for which some must be lost
	}{
		"few":     {500, 1, 0, false, ""},
		"budget":  {20_000, 1, 10, false, "budget"},
		"flood":   {50_000, 1, 0, true, "ring_full"},
		"sampled": {5_000, 10, 0, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			host := testkit.Inspect(t)
			cgroup := testkit.NewCgroup(t, host)
			log := &eventLog{Handler: quiet(t), gate: make(chan struct{}), counts: map[string]int{}}
			open := sync.OnceFunc(func() { close(log.gate) })
			defer open() // the reader must not hang at the end
			if !c.held {
				open()
			}
			options := defaults(log, "privilege")
			options.Detailed, options.SampleRate = true, c.rate
			options.Constants = map[string]any{"only_cgroup": cgroup.ID, "budget_per_window": c.budget}
			m := New(options)
			m.Start(t.Context())
			worker := cgroup.Start(t, "host")
			defer func() {
				open()
				worker.Stop()
				if err := m.Close(); err != nil {
					t.Error(err)
				}
			}()
			worker.Do("setgid", strconv.Itoa(c.calls))
			open()

			const produced = `security_ebpf_events_total{probe="privilege"}`
			lost := func(p page) (sum float64) {
				for _, reason := range abi.Losses {
					n := p[fmt.Sprintf(`security_ebpf_events_lost_total{probe="privilege",reason=%q}`, reason)]
					if (n > 0) != (reason == c.lost) {
						t.Errorf("lost by %s: %v", reason, n)
					}
					sum += n
				}
				return sum
			}
			p := mustScrape(t, m)
			if p[produced] != float64(c.calls) {
				t.Errorf("%v events produced, want %d", p[produced], c.calls)
			}
			want := c.calls - int(lost(p))
			low, high := want, want
			if c.rate > 1 { // seven standard deviations of 5,000 at one in 10
				low, high = want/int(c.rate)-150, want/int(c.rate)+150
			}
			for deadline := time.Now().Add(10 * time.Second); log.count("privilege privilege") < low && time.Now().Before(deadline); {
				time.Sleep(20 * time.Millisecond)
			}
			time.Sleep(200 * time.Millisecond)
			got := log.count("privilege privilege")
			if got < low || got > high {
				t.Errorf("%d delivered, want %d to %d", got, low, high)
			}
			if log.weight != int64(got)*int64(c.rate) {
				t.Errorf("the weights sum up to %d, want %d times %d", log.weight, got, c.rate)
			}
			p = mustScrape(t, m)
			delivered := p[`security_ebpf_events_delivered_total{probe="privilege"}`]
			sampled := p[`security_ebpf_events_sampled_total{probe="privilege"}`]
			if delivered != float64(got) || p[produced] != delivered+sampled+lost(p) {
				t.Errorf("%v produced, %v delivered (%d arrived), %v sampled, %v lost", p[produced], delivered, got, sampled, lost(p))
			}
			if (sampled > 0) != (c.rate > 1) {
				t.Errorf("%v sampled at a rate of %d", sampled, c.rate)
			}
			if got := p[`security_ebpf_privilege_escalation_total{result="success",type="setgid"}`]; got != float64(c.calls) {
				t.Errorf("the counter says %v, want %d: it is never sampled", got, c.calls)
			}
		})
	}
}

// TestSetSampleRate changes the rate while the programs run.
func TestSetSampleRate(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	options := defaults(quiet(t), "privilege")
	options.Constants = map[string]any{"only_cgroup": cgroup.ID, "budget_per_window": uint32(0)}
	m := run(t, options)
	worker := cgroup.Start(t, "host")
	defer worker.Stop()
	const n = 2000
	sampled := func() float64 {
		return mustScrape(t, m)[`security_ebpf_events_sampled_total{probe="privilege"}`]
	}
	for _, c := range []struct {
		rate        uint32
		least, most float64
	}{{1, 0, 0}, {10, 1700, 1900}, {0, 0, 0}, {10_000, 1990, 2000}} {
		if err := m.setSampleRate(c.rate); err != nil {
			t.Fatal(err)
		}
		before, kept := sampled(), m.keptEvents()
		worker.Do("setgid", strconv.Itoa(n))
		if got := float64(m.keptEvents() - kept); got != n-(sampled()-before) {
			t.Errorf("rate %d: %v kept, %v sampled out", c.rate, got, sampled()-before)
		}
		if got := sampled() - before; got < c.least || got > c.most {
			t.Errorf("rate %d: %v of %d sampled out, want %v to %v", c.rate, got, n, c.least, c.most)
		}
		if got := mustScrape(t, m)["security_ebpf_sample_rate"]; got != float64(max(1, c.rate)) {
			t.Errorf("the page says a rate of %v, want %d", got, c.rate)
		}
	}
}
