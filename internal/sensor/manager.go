// SPDX-License-Identifier: Apache-2.0

// Package sensor is the runtime half: it starts the probes, joins their
// counters and its own into metric rows, and stops them. The data path in
// reading order: probe and probes (kernel side), then aggregate for the
// counters and collect.go, which serves them; event, sample, identity and topn
// for the detail stream, joined in detail.go.
package sensor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/config"
	"security-exporter/internal/metric"
	"security-exporter/internal/sensor/aggregate"
	"security-exporter/internal/sensor/event"
	"security-exporter/internal/sensor/identity"
	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/sensor/probes/file"
	"security-exporter/internal/sensor/topn"
)

// period is how often rates are computed.
const period = 5 * time.Second

// Options are the settings of the runtime half, validated by package config.
type Options struct {
	Enabled            bool
	Probes             []string
	Rules              []config.FileRule
	HookPolicy         probe.Policy // empty is auto
	SampleRate         uint32
	MaxEventsPerSecond int
	// SampleRateFixed pins the sample rate; else it follows the volume.
	SampleRateFixed bool
	// Detailed adds the events that the rankings have no use for, and logs
	// each.
	Detailed bool
	// Arguments puts the arguments of programs into exec events.
	Arguments bool
	// TopN is how many keys of each ranking are exported; TopCapacity and
	// TopWindow are those of the rankings, and 0 means their defaults.
	TopN, TopCapacity int
	TopWindow         time.Duration
	// OnEvent is called for each detail event, by two goroutines; it must not
	// wait and must keep nothing of the event. Optional.
	OnEvent func(*event.Event, *identity.Identity)
	ProcFS  string
	SysFS   string
	RootFS  string
	Logger  *slog.Logger
	// Constants are added to those of every program, for tests.
	Constants map[string]any
	// sampleInterval is the sampler's, for tests; 0: its own.
	sampleInterval time.Duration
}

// Manager owns loading, attaching and detaching. Collect and Describe are safe
// for concurrent use at any time, also before Start and after Close.
type Manager struct {
	options Options
	log     *slog.Logger
	specs   []*probe.Spec
	rules   *file.Rules
	own     ownMetrics
	all     []*metric.Metric

	mu     sync.RWMutex // guards what follows: a scrape reads it
	probes []*probe.Probe
	keeper *probe.Probe // keeps the process table
	shared *probe.Shared
	rates  []float64

	sampleRate atomic.Uint32
	readers    []*event.Reader    // filled by Start
	identity   *identity.Resolver // from Start to Close
	programs   *identity.Executables
	rankings   *topn.Rankings // nil without eBPF
	started    chan struct{}  // closed when Start returns
	stop       context.CancelFunc
	background sync.WaitGroup
}

// New prepares the runtime half. It touches nothing.
func New(options Options) *Manager {
	rules := file.NewRules(options.Rules)
	m := &Manager{
		options: options, log: options.Logger, specs: all(rules), rules: rules, own: newOwnMetrics(),
		started: make(chan struct{}), rates: make([]float64, len(abi.Probes)),
	}
	m.sampleRate.Store(max(1, options.SampleRate))
	if options.Enabled {
		m.rankings = topn.New(topn.Options{Capacity: options.TopCapacity, Window: options.TopWindow})
	}
	m.all = m.own.table()
	for _, spec := range m.specs {
		m.all = append(m.all, spec.Metrics...)
	}
	return m
}

// Start loads and attaches the probes that were asked for. It does not fail:
// what went wrong with which probe is in the metrics and the log.
//
// The process probe is loaded in any case, for the others need its table and
// its notice of 32-bit programs; not asked for, it has no events and is not
// reported.
func (m *Manager) Start(ctx context.Context) {
	defer close(m.started)
	if !m.options.Enabled {
		return
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		// Since 5.11 memory of BPF objects is charged to the cgroup instead.
		m.log.Debug("Cannot raise the memory lock limit", "err", err)
	}
	host := probe.Inspect(m.options.ProcFS, m.options.SysFS, m.options.RootFS)
	shared := probe.NewShared()
	var started []*probe.Probe
	var keeper *probe.Probe
	host.WithTracefs(func() {
		for _, spec := range m.specs {
			keeps := spec.Index == int(abi.ProbeProcess)
			if ctx.Err() != nil || (!keeps && !m.wanted(spec)) {
				continue
			}
			settings := m.settings(host)
			if !m.wanted(spec) {
				settings.Constants["stream"] = false
			}
			p := probe.Start(ctx, spec, host, shared, settings, m.log)
			if keeps {
				keeper = p
			}
			if m.wanted(spec) {
				started = append(started, p)
			}
		}
	})
	m.mu.Lock()
	m.probes, m.keeper, m.shared = started, keeper, shared
	m.mu.Unlock()

	ctx, m.stop = context.WithCancel(ctx)
	m.background.Go(func() { m.keepRates(ctx) })
	m.watchCompat(ctx)
	m.startDetail(ctx, host)
	host.Release()
	m.logStatus()
}

// SetRules puts other file rules in force: all of them, or none and an error.
// What the old and the new ones have in common goes on being counted.
func (m *Manager) SetRules(rules []config.FileRule) error { return m.rules.Set(rules) }

func (m *Manager) wanted(spec *probe.Spec) bool {
	return slices.Contains(m.options.Probes, spec.Name())
}

func (m *Manager) settings(host *probe.Host) probe.Settings {
	constants := map[string]any{
		"rings":     host.RingBuffers,
		"stream":    host.RingBuffers,
		"detailed":  m.options.Detailed,
		"arguments": m.options.Arguments,
		// From whose hierarchy of cgroup version 1 the events have an id.
		"legacy_controller": host.Legacy.Index,
		// Twice the target, so that the sampler has room to notice; shared
		// out over the CPUs and the ten windows of a second. The same for
		// each probe, and for what is serious of it, which is not sampled.
		"budget_per_window": m.budget(),
		"sample_rate":       m.sampleRate.Load(),
	}
	for name, value := range m.options.Constants {
		constants[name] = value
	}
	return probe.Settings{Constants: constants, Policy: m.options.HookPolicy}
}

const windowsPerSecond = 10

// budget is how many events each CPU may put in a ring in each window.
func (m *Manager) budget() uint32 {
	return uint32(max(1, 2*m.options.MaxEventsPerSecond/windowsPerSecond/runtime.NumCPU()))
}

// loaded are the probes with the one that keeps the process table.
func (m *Manager) loaded() []*probe.Probe {
	if m.keeper == nil || slices.Contains(m.probes, m.keeper) {
		return m.probes
	}
	return append(slices.Clone(m.probes), m.keeper)
}

// setSampleRate makes the programs keep one in rate of the frequent events
// from now on. Each kept event carries the rate in force when it happened as
// its weight. Serious events are not sampled.
func (m *Manager) setSampleRate(rate uint32) error {
	rate = max(1, rate)
	m.mu.RLock()
	defer m.mu.RUnlock()
	var errs []error
	for _, p := range m.loaded() {
		// A part that is attached later has its variables from here too.
		if v := p.Variable("sample_rate"); v != nil {
			if err := v.Set(rate); err != nil {
				errs = append(errs, fmt.Errorf("probe %s: set the sample rate: %w", p.Spec().Name(), err))
			}
		}
	}
	m.sampleRate.Store(rate)
	return errors.Join(errs...)
}

// keptEvents is how many frequent events sampling has kept so far, those that
// the budget or a full ring then lost included: what a sampler judges by.
func (m *Manager) keptEvents() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.shared == nil {
		return 0
	}
	kept := 0.0
	for i := range abi.Probes {
		kept += m.sum("events_total", i) - m.sum("events_serious_total", i) - m.sum("events_sampled_total", i)
	}
	return uint64(max(0, kept))
}

// SampleRate is the rate in force.
func (m *Manager) SampleRate() uint32 { return m.sampleRate.Load() }

// keepRates computes the rates of each period until ctx ends.
func (m *Manager) keepRates(ctx context.Context) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	rates := make([]aggregate.Rate, len(abi.Probes))
	for now := time.Now(); ; {
		for _, p := range m.probes {
			m.doPeriodic(p)
			total, err := aggregate.Total(p)
			if err != nil {
				m.log.Warn("Rate not known", "err", err)
				continue
			}
			rate := rates[p.Spec().Index].Update(total, now)
			m.mu.Lock()
			m.rates[p.Spec().Index] = rate
			m.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case now = <-tick.C:
		}
	}
}

func (m *Manager) doPeriodic(p *probe.Probe) {
	if p.Spec().Periodic == nil || !p.Status().Running() {
		return
	}
	if err := p.Spec().Periodic(p); err != nil {
		p.Log().Debug("periodic work failed", "err", err)
	}
}

// watchCompat attaches what sees the 32-bit entry when the process probe
// notices the first 32-bit image; at once if it cannot tell.
func (m *Manager) watchCompat(ctx context.Context) {
	attach := func() {
		for _, p := range m.probes {
			if err := p.AttachCompat(); err != nil {
				p.Log().Warn("Calls of 32-bit programs are not seen", "err", err)
			}
		}
	}
	if m.keeper == nil || !m.keeper.Status().Running() || !m.keeper.Host().RingBuffers {
		attach()
		return
	}
	notices, err := ringbuf.NewReader(m.keeper.Map("notices"))
	if err != nil {
		m.log.Debug("Cannot read notices", "err", err)
		attach()
		return
	}
	context.AfterFunc(ctx, func() { _ = notices.Close() })
	m.background.Go(func() {
		if _, err := notices.Read(); err != nil {
			return // closed
		}
		<-m.started // Start has let go of the kernel's types
		host := m.keeper.Host()
		host.Hold()
		attach()
		host.Release()
		m.log.Info("A 32-bit program runs: its system calls are watched from now on")
	})
}

func (m *Manager) logStatus() {
	for _, p := range m.probes {
		s := p.Status()
		m.log.Info("Probe", "name", p.Spec().Name(), "state", string(s.State), "reason", string(s.Reason), "hook", s.Hook)
	}
}

// Close detaches and unloads everything. Nothing is pinned, so nothing is
// left. A scrape that comes later sees the state "disabled".
func (m *Manager) Close() error {
	if m.stop != nil {
		m.stop()
		m.background.Wait()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for _, p := range slices.Backward(m.loaded()) {
		errs = append(errs, p.Close())
	}
	if m.shared != nil {
		errs = append(errs, m.shared.Close())
	}
	if m.identity != nil {
		errs = append(errs, m.identity.Close())
	}
	m.probes, m.keeper, m.shared, m.identity = nil, nil, nil, nil
	m.options.Enabled = false
	return errors.Join(errs...)
}
