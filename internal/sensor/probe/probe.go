// SPDX-License-Identifier: Apache-2.0

// Package probe loads one BPF object and attaches it as well as the kernel
// allows. A probe consists of parts, each with a ladder of rungs: hooks that
// see the same thing, best first. The first rung that loads and attaches is
// used. A part that finds no rung leaves the others alone.
package probe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/metric"
)

// Spec declares a probe. It is data: nothing in it touches the kernel.
type Spec struct {
	// Index is the probe's number in the border contract; its name and the
	// labels of its events follow from it.
	Index int
	// Metrics are the rows this probe produces. A metric that has a map of
	// its own name, without the prefix, is summed from it.
	Metrics []*metric.Metric
	// Load parses the embedded object.
	Load func() (*ebpf.CollectionSpec, error)
	// Object is the embedded object, as it was compiled.
	Object []byte
	// Parts are attached in order.
	Parts []Part
	// Started runs once the parts are attached: it fills tables with what is
	// older than the exporter. An error is logged, not fatal.
	Started func(*Probe) error
	// Collect adds rows that are no plain counters. Optional.
	Collect func(*Probe, *metric.Batch)
	// Periodic is called every few seconds while the probe runs, for work
	// that a scrape should not wait for. Optional.
	Periodic func(*Probe) error
	// Tables says how full the probe's bounded tables are. Optional.
	Tables func(*Probe) []Table
	// Compat sees system calls through the 32-bit entry. It is attached only
	// when the first 32-bit image is executed. Optional.
	Compat *Part
	// Stop ends what Started left running, before the probe is detached.
	// Optional.
	Stop func()
}

// Table is a bounded table and how full it is.
type Table struct {
	Name              string
	Entries, Capacity int
	// Evictions are what did not fit, since start; those that the programs
	// count in the shared map_evictions are not among them.
	Evictions uint64
}

// Name is the probe's name in metrics, flags and logs.
func (s *Spec) Name() string { return abi.Probes[s.Index] }

// Part is one thing a probe sees, with the hooks that can see it.
type Part struct {
	Name  string
	Rungs []Rung
	// Applies returns an error when there is nothing of the kind to see on
	// this kernel, or a part attached before sees it, which is no failure.
	// Optional.
	Applies func(*Probe) error
	// Auxiliary parts add to what others count; the probe is attached
	// without them.
	Auxiliary bool
}

// UnlessRuns is an Applies for a part whose work others do: it does not apply
// when one of these programs is attached.
func UnlessRuns(programs ...string) func(*Probe) error {
	return func(p *Probe) error {
		if slices.ContainsFunc(programs, p.Runs) {
			return fmt.Errorf("%w: the rung in use sees them", ErrNotApplicable)
		}
		return nil
	}
}

// Rung is a set of programs that together see a part.
type Rung struct {
	// Hook names the rung in metrics and documents.
	Hook string
	// Programs must all attach.
	Programs []string
	// Optional programs are left out where their hook does not exist, as
	// IPv6.
	Optional []string
	// Events are the classic tracepoints that each program of such a type is
	// attached to, in place of the one of its section: one program for many
	// is verified once. All must exist.
	Events []string
	// OptionalEvents are left out where they do not exist, as a system call
	// of another architecture.
	OptionalEvents []string
	// Requires returns an error when the rung cannot work here, before
	// anything is loaded. Optional.
	Requires func(*Host) error
}

// Settings are the constants and the shared maps that every object gets.
type Settings struct {
	// Constants are frozen into the program before load, by variable name.
	// A name that an object does not declare is skipped.
	Constants map[string]any
	// MaxEntries changes the size of tables by map name.
	MaxEntries map[string]uint32
	// Policy says which rungs may be used; empty is auto.
	Policy Policy
	// LogLevel is what the verifier is to say of programs that it accepts,
	// for tests.
	LogLevel ebpf.LogLevel
	// Edit changes an object before it is loaded, for tests. Optional.
	Edit func(*ebpf.CollectionSpec)
}

// Probe is a loaded probe. Its methods are safe for concurrent use once Start
// has returned.
type Probe struct {
	spec     *Spec
	host     *Host
	settings Settings
	log      *slog.Logger
	object   *ebpf.CollectionSpec
	maps     map[string]*ebpf.Map
	status   Status

	mu        sync.Mutex // guards what follows: Compat is attached late
	programs  map[string]*ebpf.Program
	covered   map[string]bool // by a program that stands in
	links     []link.Link
	linger    linger
	iterators map[string]*link.Iter
	variables map[string]*ebpf.Variable
}

// Start loads and attaches a probe. It always returns one: what went wrong is
// in its Status. Close it in any case. When ctx ends it leaves out the parts
// that are still to come.
func Start(ctx context.Context, spec *Spec, host *Host, shared *Shared, settings Settings, log *slog.Logger) *Probe {
	p := &Probe{
		spec: spec, host: host, settings: settings, log: log.With("probe", spec.Name()),
		programs:  map[string]*ebpf.Program{},
		covered:   map[string]bool{},
		iterators: map[string]*link.Iter{},
	}
	// The parsed object is some megabytes; what comes later parses it again.
	defer func() { p.object = nil }()
	if err := p.loadMaps(shared); err != nil {
		p.status = statusOf(err)
		p.logFailure("cannot load", err)
		return p
	}
	p.attachParts(ctx)
	if ctx.Err() != nil {
		return p
	}
	if p.status.Hook != "" && spec.Started != nil {
		if err := spec.Started(p); err != nil {
			p.log.Warn("counts start with what happens from now on", "err", err)
		}
	}
	return p
}

// Spec is the declaration the probe was started from.
func (p *Probe) Spec() *Spec { return p.spec }

// Host is the kernel the probe runs on.
func (p *Probe) Host() *Host { return p.host }

// Log is the probe's own logger.
func (p *Probe) Log() *slog.Logger { return p.log }

// Status says which rungs are in use and what failed.
func (p *Probe) Status() Status { return p.status }

// Map returns a map of the object, or nil if the object did not load.
func (p *Probe) Map(name string) *ebpf.Map { return p.maps[name] }

// Variable returns a variable of the loaded object that may be changed while
// its programs run, or nil.
func (p *Probe) Variable(name string) *ebpf.Variable { return p.variables[name] }

// Program returns a loaded and attached program, or nil.
func (p *Probe) Program(name string) *ebpf.Program {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.programs[name]
}

// Runs says whether a program is loaded and attached.
func (p *Probe) Runs(program string) bool { return p.programs[program] != nil }

// loadMaps creates the object's maps, with the shared ones put in.
func (p *Probe) loadMaps(shared *Shared) error {
	if p.host.BTFErr != nil {
		return p.host.BTFErr
	}
	var err error
	if p.object, err = p.parse(); err != nil {
		return err
	}
	only := *p.object
	only.Programs = nil
	collection, err := ebpf.NewCollectionWithOptions(&only, ebpf.CollectionOptions{MapReplacements: shared.present(&only)})
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("create maps: %w: run as root, or grant CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN", unix.EPERM)
	}
	if err != nil {
		return fmt.Errorf("create maps: %w", err)
	}
	defer collection.Close()
	p.variables = collection.Variables
	p.maps = map[string]*ebpf.Map{}
	for name := range only.Maps {
		p.maps[name] = collection.DetachMap(name)
	}
	return shared.keep(p.maps)
}

func (p *Probe) attachParts(ctx context.Context) {
	var hooks []string
	for i := range p.spec.Parts {
		if ctx.Err() != nil {
			break
		}
		part := &p.spec.Parts[i]
		hook, err := p.attachPart(part)
		switch {
		case err == nil:
			if hook != "" && !part.Auxiliary {
				hooks = append(hooks, hook)
			}
		case part.Auxiliary && errors.Is(err, ErrNotApplicable):
		case part.Auxiliary:
			p.log.Warn("part not available", "part", part.Name, "err", lastLine(err))
		default:
			status := statusOf(err)
			p.status = p.status.worse(status)
			if status.State != NotApplicable {
				p.logFailure("part not attached: "+part.Name, err)
			}
		}
	}
	p.status.Hook = strings.Join(hooks, " ")
	if p.status.State == "" {
		p.status.State, p.status.Reason = Attached, ReasonNone
	}
}

// attachPart tries the rungs in order and returns the name of the one in use.
// The error is that of the last rung: the one that asks least of the kernel.
func (p *Probe) attachPart(part *Part) (string, error) {
	if part.Applies != nil {
		if err := part.Applies(p); err != nil {
			return "", err
		}
	}
	rungs, last := p.allowed(part)
	for _, rung := range rungs {
		err := p.attachRung(rung)
		if err == nil {
			p.log.Debug("attached", "part", part.Name, "hook", rung.Hook)
			return rung.Hook, nil
		}
		p.log.Debug("rung refused", "part", part.Name, "hook", rung.Hook, "err", err)
		last = err
	}
	return "", last
}

// AttachCompat attaches what sees the 32-bit entry, if the probe needs it. The
// host must hold the kernel's types.
func (p *Probe) AttachCompat() error {
	if p.spec.Compat == nil || !p.status.Running() {
		return nil
	}
	var err error
	if p.object, err = p.parse(); err != nil {
		return err
	}
	defer func() { p.object = nil }()
	_, err = p.attachPart(p.spec.Compat)
	if errors.Is(err, ErrNotApplicable) {
		return nil
	}
	return err
}

// attachRung loads and attaches the programs of one rung, all or none.
func (p *Probe) attachRung(rung *Rung) error {
	if rung.Requires != nil {
		if err := rung.Requires(p.host); err != nil {
			return err
		}
	}
	loaded := newRungState(p)
	if err := loaded.attachAll(rung); err != nil {
		loaded.close()
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.Copy(p.programs, loaded.programs)
	maps.Copy(p.iterators, loaded.iterators)
	p.links = append(p.links, loaded.links...)
	return nil
}

// RecursionMisses is how often the kernel's recursion guard kept a program of
// this probe from running. Since 5.12; 0 before.
func (p *Probe) RecursionMisses() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	var n uint64
	for name, program := range p.programs {
		if stats, err := program.Stats(); err == nil && !p.covered[name] {
			n += stats.RecursionMisses
		}
	}
	return n
}

// Cover says that what the recursion guard keeps a program from seeing is
// seen by another, so that its misses are no losses.
func (p *Probe) Cover(programs ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range programs {
		p.covered[name] = true
	}
}

// Misses is how often the recursion guard kept one program from running.
func (p *Probe) Misses(program string) (uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	loaded := p.programs[program]
	if loaded == nil {
		return 0, fmt.Errorf("program %s is not loaded", program)
	}
	stats, err := loaded.Stats()
	if err != nil {
		return 0, fmt.Errorf("program %s: %w", program, err)
	}
	return stats.RecursionMisses, nil
}

// ProgramID is the kernel's number of a loaded program.
func (p *Probe) ProgramID(name string) (uint32, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	program := p.programs[name]
	if program == nil {
		return 0, fmt.Errorf("program %s is not loaded", name)
	}
	info, err := program.Info()
	if err != nil {
		return 0, fmt.Errorf("program %s: %w", name, err)
	}
	id, ok := info.ID()
	if !ok {
		return 0, fmt.Errorf("program %s has no id", name)
	}
	return uint32(id), nil
}

// Close detaches and unloads. What was counted is gone with it.
func (p *Probe) Close() error {
	if p.spec.Stop != nil {
		p.spec.Stop()
	}
	errs := []error{closeLinks(p.links), p.linger.close()}
	for _, iterator := range p.iterators {
		errs = append(errs, iterator.Close())
	}
	for _, program := range p.programs {
		errs = append(errs, program.Close())
	}
	for _, m := range p.maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

func (p *Probe) logFailure(what string, err error) {
	var verifier *ebpf.VerifierError
	if errors.As(err, &verifier) {
		p.log.Debug("verifier log", "log", fmt.Sprintf("%+v", verifier))
	}
	p.log.Warn(what, "err", lastLine(err), "state", p.status.State, "reason", p.status.Reason)
}

// lastLine shortens an error to one line: of a verifier log, its verdict.
func lastLine(err error) string {
	var verifier *ebpf.VerifierError
	if errors.As(err, &verifier) && len(verifier.Log) > 0 {
		for _, line := range slices.Backward(verifier.Log) {
			if line != "" && !strings.HasPrefix(line, "processed ") {
				return fmt.Sprintf("%v: %s", verifier.Cause, strings.TrimSpace(line))
			}
		}
	}
	return strings.ReplaceAll(err.Error(), "\n", " ")
}
