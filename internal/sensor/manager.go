// SPDX-License-Identifier: Apache-2.0

// Package sensor is the runtime half: it starts the probes, joins their
// counters and its own into metric rows, and stops them. The data path in
// reading order: probe and probes (kernel side), event, aggregate, and
// collect.go, which serves it.
package sensor

import (
	"context"
	"errors"
	"log/slog"
	"os"
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
	"security-exporter/internal/sensor/probe"
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
	Detailed           bool
	ProcFS             string
	SysFS              string
	RootFS             string
	Logger             *slog.Logger
	// Constants are added to those of every program, for tests.
	Constants map[string]any
}

// Manager owns loading, attaching and detaching. Collect and Describe are safe
// for concurrent use at any time, also before Start and after Close.
type Manager struct {
	options Options
	log     *slog.Logger
	specs   []*probe.Spec
	own     ownMetrics
	all     []*metric.Metric

	mu     sync.RWMutex // guards what follows: a scrape reads it
	probes []*probe.Probe
	keeper *probe.Probe // keeps the process table
	shared *probe.Shared
	rates  []float64

	decodeErrors []atomic.Uint64
	started      chan struct{} // closed when Start returns
	stop         context.CancelFunc
	background   sync.WaitGroup
}

// New prepares the runtime half. It touches nothing.
func New(options Options) *Manager {
	m := &Manager{
		options: options, log: options.Logger, specs: all(options.Rules), own: newOwnMetrics(),
		started: make(chan struct{}), rates: make([]float64, len(abi.Probes)), decodeErrors: make([]atomic.Uint64, len(abi.Probes)),
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
// its notice of 32-bit programs; not asked for, it is not reported.
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
			if ctx.Err() != nil || !(keeps || m.wanted(spec)) {
				continue
			}
			p := probe.Start(spec, host, shared, m.settings(host), m.log)
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
	m.readEvents(ctx)
	host.Release()
	m.logStatus()
}

func (m *Manager) wanted(spec *probe.Spec) bool {
	return slices.Contains(m.options.Probes, spec.Name())
}

func (m *Manager) settings(host *probe.Host) probe.Settings {
	constants := map[string]any{
		"detailed": m.options.Detailed && host.RingBuffers,
		"rings":    host.RingBuffers,
		// Twice the target, so that the sampler has room to notice; shared
		// out over the CPUs and the ten windows of a second.
		"budget_per_window": uint32(max(1, 2*m.options.MaxEventsPerSecond/windowsPerSecond/runtime.NumCPU())),
		"sample_rate":       m.options.SampleRate,
	}
	for name, value := range m.options.Constants {
		constants[name] = value
	}
	sizes := map[string]uint32{}
	if !m.options.Detailed {
		sizes["events"] = uint32(os.Getpagesize()) // nobody writes there
	}
	return probe.Settings{Constants: constants, MaxEntries: sizes, Policy: m.options.HookPolicy}
}

const windowsPerSecond = 10

// keepRates computes the rates of each period until ctx ends.
func (m *Manager) keepRates(ctx context.Context) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	rates := make([]aggregate.Rate, len(abi.Probes))
	for now := time.Now(); ; {
		for _, p := range m.probes {
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
		attach()
		m.log.Info("A 32-bit program runs: its system calls are watched from now on")
	})
}

// readEvents decodes the detail stream and writes it to the log.
func (m *Manager) readEvents(ctx context.Context) {
	ring := m.shared.Map("events")
	if !m.options.Detailed || ring == nil {
		return
	}
	reader, err := event.NewReader(ring)
	if err != nil {
		m.log.Warn("No detail events", "err", err)
		return
	}
	context.AfterFunc(ctx, func() { _ = reader.Close() })
	m.background.Go(func() {
		reader.Run(func(e event.Event) {
			m.log.Debug("Event", "probe", e.Probe, "kind", e.Kind, "class", e.Class, "weight", e.Weight,
				"tgid", e.TGID, "tid", e.TID, "uid", e.UID, "euid", e.EUID, "comm", metric.Clean(e.Comm),
				"name", metric.Clean(e.Name), "peer", e.Peer, "what", e.What, "how", e.How, "a", e.A, "b", e.B)
		}, func(err error) {
			m.decodeErrors[abi.ProbeProcess].Add(1)
			m.log.Debug("Event refused", "err", err)
		})
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
	for _, p := range slices.Backward(m.probes) {
		errs = append(errs, p.Close())
	}
	if m.keeper != nil && !slices.Contains(m.probes, m.keeper) {
		errs = append(errs, m.keeper.Close())
	}
	if m.shared != nil {
		errs = append(errs, m.shared.Close())
	}
	m.probes, m.keeper, m.shared = nil, nil, nil
	m.options.Enabled = false
	return errors.Join(errs...)
}
