// SPDX-License-Identifier: Apache-2.0

package sensor

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/cilium/ebpf"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
	"security-exporter/internal/sensor/event"
	"security-exporter/internal/sensor/identity"
	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/sensor/sample"
	"security-exporter/internal/sensor/topn"
)

const (
	// fillTimeout bounds how long the start waits for the containers that
	// run already.
	fillTimeout = 3 * time.Second
	// adaptInterval is how often the sampler is told the time; it decides
	// itself when to look.
	adaptInterval = time.Second
	// catchUp is how long the frequent events wait for the serious ones.
	catchUp = 5 * time.Millisecond
)

// startDetail begins to read the detail stream: each event is told its
// container, ranked and handed on. One goroutine for each ring, one for the
// sampler, one for the containers.
func (m *Manager) startDetail(ctx context.Context, host *probe.Host) {
	root := hostfs.New(hostfs.Paths{Procfs: m.options.ProcFS, Sysfs: m.options.SysFS, Rootfs: m.options.RootFS})
	resolver := identity.New(identity.Options{
		Root: root,
		// Without cgroup version 2 the events have no cgroup either.
		CgroupRoot: host.CgroupRoot, LegacyRoot: host.Legacy.Root, LegacyController: host.Legacy.Controller,
		Logger: m.log,
	})
	filling, cancel := context.WithTimeout(ctx, fillTimeout)
	if err := resolver.Fill(filling); err != nil {
		m.log.Debug("Containers are learned as they are seen", "err", err)
	}
	cancel()
	m.mu.Lock()
	m.identity, m.programs = resolver, identity.NewExecutables(root, m.readSerious)
	m.mu.Unlock()
	m.background.Go(func() { resolver.Run(ctx) })
	m.background.Go(func() { m.adaptRate(ctx) })
	m.readEvents(ctx)
}

// readEvents reads both rings of the detail stream.
func (m *Manager) readEvents(ctx context.Context) {
	for _, ring := range []struct {
		name    string
		serious bool
	}{{"serious_events", true}, {"events", false}} {
		events := m.shared.Map(ring.name)
		if events == nil || events.Type() != ebpf.RingBuf {
			continue
		}
		reader, err := event.NewReader(events, m.shared.Map("sleeping_readers"), ring.serious)
		if err != nil {
			m.log.Warn("No detail events", "ring", ring.name, "err", err)
			continue
		}
		m.mu.Lock()
		m.readers = append(m.readers, reader)
		m.mu.Unlock()
		context.AfterFunc(ctx, func() { _ = reader.Close() })
		m.background.Go(func() {
			reader.Run(m.handler(), func(err error) { m.log.Debug("Event refused", "err", err) })
		})
	}
}

// readSerious waits until the serious events that have happened by now are
// handled: who connects may have made a suspicious exec a moment ago. Only the
// frequent events have an executable to look for, so their reader calls it.
func (m *Manager) readSerious() {
	for _, reader := range m.readers {
		if reader.Serious() {
			reader.CatchUp(catchUp)
		}
	}
}

// handler returns what takes the events of one reader.
func (m *Manager) handler() func(*event.Event) {
	var path []byte // of the event's executable
	return func(e *event.Event) {
		path = m.programs.Fill(e, path)
		m.handle(e)
	}
}

func (m *Manager) handle(e *event.Event) {
	who := m.identity.Lookup(e)
	m.rankings.Observe(e, who.Label())
	if m.options.OnEvent != nil {
		m.options.OnEvent(e, who)
	}
	if m.options.Detailed && m.log.Enabled(context.Background(), slog.LevelDebug) {
		m.logEvent(e)
	}
}

func (m *Manager) logEvent(e *event.Event) {
	class := ""
	if e.Class != event.NoClass {
		class = abi.Classes[e.Class]
	}
	m.log.Debug("Event", "probe", abi.Probes[e.Probe], "kind", e.Kind.String(), "class", class,
		"severity", e.Severity.String(), "serious", e.Serious, "weight", e.Weight,
		"tgid", e.TGID, "tid", e.TID, "parent", e.Parent, "uid", e.UID, "euid", e.EUID, "loginuid", e.LoginUID,
		"cgroup", e.CgroupID, "legacy_cgroup", e.LegacyCgroupID, "comm", metric.Clean(string(e.Comm)), "executable", metric.Clean(string(e.Executable)),
		"name", metric.Clean(string(e.Name)), "peer", e.Peer, "old", e.OldID, "new", e.NewID)
}

// adaptRate lets the sample rate follow the volume until ctx ends.
func (m *Manager) adaptRate(ctx context.Context) {
	sampler := sample.New(sample.Settings{
		Rate: m.SampleRate(), Fixed: m.options.SampleRateFixed, Target: m.options.MaxEventsPerSecond,
		Interval: m.options.sampleInterval,
	})
	tick := time.NewTicker(min(adaptInterval, cmp.Or(m.options.sampleInterval, adaptInterval)))
	defer tick.Stop()
	for now := time.Now(); ; {
		if rate := sampler.Tick(now, m.keptEvents()); rate != m.SampleRate() {
			if err := m.setSampleRate(rate); err != nil {
				m.log.Warn("The sample rate stays for a part of the events", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case now = <-tick.C:
		}
	}
}

// Top is a ranking of who did most, of the last span or, if it is 0, since the
// start. It is empty without eBPF. Safe for concurrent use.
func (m *Manager) Top(by topn.By, n int, span time.Duration) topn.Top {
	if m.rankings == nil {
		return topn.Top{}
	}
	return m.rankings.Top(by, n, span)
}

// collectDetail adds the rankings, and how much of the containers is known.
func (m *Manager) collectDetail(batch *metric.Batch) {
	if m.rankings == nil || m.identity == nil {
		return
	}
	m.own.top.Add(batch, m.rankings, m.options.TopN)
	m.own.identity.Add(batch, m.identity.Stats())
	m.own.identity.AddExecutables(batch, m.programs.Stats())
}
