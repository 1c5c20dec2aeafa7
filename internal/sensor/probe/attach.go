// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// rungState holds what one rung has opened so far, so that a rung that fails
// half-way leaves nothing behind.
type rungState struct {
	probe     *Probe
	programs  map[string]*ebpf.Program
	iterators map[string]*link.Iter
	links     []link.Link
}

func newRungState(p *Probe) *rungState {
	return &rungState{probe: p, programs: map[string]*ebpf.Program{}, iterators: map[string]*link.Iter{}}
}

// attachAll loads the programs of a rung together, then attaches each.
func (r *rungState) attachAll(rung *Rung) error {
	names := slices.Clone(rung.Programs)
	for _, name := range names {
		if err := r.probe.canAttach(name, rung.Events); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, name := range rung.Optional {
		if err := r.probe.canAttach(name, nil); err != nil {
			r.probe.log.Debug("hook does not exist here", "program", name, "err", err)
			continue
		}
		names = append(names, name)
	}
	if err := r.load(names); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	for _, name := range names {
		if err := r.attachEverywhere(name, rung); err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
	}
	return nil
}

// places is where a program goes: where its section says, or for a classic
// tracepoint to each of the events, if there are any.
func places(spec *ebpf.ProgramSpec, events []string) []*ebpf.ProgramSpec {
	if spec.Type != ebpf.TracePoint || len(events) == 0 {
		return []*ebpf.ProgramSpec{spec}
	}
	var out []*ebpf.ProgramSpec
	for _, event := range events {
		place := *spec // shallow: only read
		place.AttachTo = event
		out = append(out, &place)
	}
	return out
}

func (p *Probe) canAttach(name string, events []string) error {
	spec, ok := p.object.Programs[name]
	if !ok {
		return errors.New("the object has no such program")
	}
	for _, place := range places(spec, events) {
		if err := p.host.canAttach(place); err != nil {
			return err
		}
	}
	return nil
}

func (r *rungState) attachEverywhere(name string, rung *Rung) error {
	spec := r.probe.object.Programs[name]
	for _, place := range places(spec, rung.Events) {
		if err := r.attach(name, place); err != nil {
			return err
		}
	}
	if spec.Type != ebpf.TracePoint || len(rung.OptionalEvents) == 0 {
		return nil
	}
	for _, place := range places(spec, rung.OptionalEvents) {
		if err := r.probe.host.canAttach(place); err != nil {
			r.probe.log.Debug("hook does not exist here", "program", name, "err", err)
			continue
		}
		if err := r.attach(name, place); err != nil {
			return err
		}
	}
	return nil
}

// load loads programs of the object on top of the maps that exist.
func (r *rungState) load(names []string) error {
	object := *r.probe.object // the library copies what it changes
	object.Programs = map[string]*ebpf.ProgramSpec{}
	for _, name := range names {
		object.Programs[name] = r.probe.object.Programs[name]
	}
	collection, err := ebpf.NewCollectionWithOptions(&object, ebpf.CollectionOptions{
		MapReplacements: r.probe.maps,
		Cache:           r.probe.host.types,
		Programs:        ebpf.ProgramOptions{KernelTypes: r.probe.host.BTF, LogLevel: r.probe.settings.LogLevel},
	})
	if err != nil {
		r.probe.host.learnFrom(&object, err)
		return explain(err)
	}
	defer collection.Close()
	for _, name := range names {
		r.programs[name] = collection.DetachProgram(name)
	}
	return nil
}

func (r *rungState) attach(name string, spec *ebpf.ProgramSpec) error {
	program := r.programs[name]
	if spec.Type == ebpf.Tracing && spec.AttachType == ebpf.AttachTraceIter {
		return r.attachIterator(name, spec, program)
	}
	attached, err := r.link(spec, program)
	if err != nil {
		return err
	}
	r.links = append(r.links, attached)
	if err := r.probe.linger.hold(attached); err != nil {
		r.probe.log.Debug("detaching will take its time", "program", name, "to", spec.AttachTo, "err", err)
	}
	return nil
}

// link attaches a program where its section says.
func (r *rungState) link(spec *ebpf.ProgramSpec, program *ebpf.Program) (link.Link, error) {
	switch spec.Type {
	case ebpf.Tracing:
		return link.AttachTracing(link.TracingOptions{Program: program})
	case ebpf.LSM:
		return link.AttachLSM(link.LSMOptions{Program: program})
	case ebpf.RawTracepoint:
		return link.AttachRawTracepoint(link.RawTracepointOptions{Name: spec.AttachTo, Program: program})
	case ebpf.TracePoint:
		group, event, ok := strings.Cut(spec.AttachTo, "/")
		if !ok {
			return nil, fmt.Errorf("section %s names no tracepoint", spec.SectionName)
		}
		attached, err := link.Tracepoint(group, event, program, nil)
		return attached, explainPerfEvent(r.probe.host.ProcFS, err)
	case ebpf.Kprobe:
		attach := link.Kprobe
		if strings.HasPrefix(spec.SectionName, "kretprobe/") {
			attach = link.Kretprobe
		}
		attached, err := attach(spec.AttachTo, program, nil)
		return attached, explainPerfEvent(r.probe.host.ProcFS, err)
	case ebpf.CGroupSockAddr:
		return link.AttachCgroup(link.CgroupOptions{Path: r.probe.host.CgroupRoot, Attach: spec.AttachType, Program: program})
	default:
		return nil, fmt.Errorf("section %s: programs of type %s are not attached here", spec.SectionName, spec.Type)
	}
}

func (r *rungState) attachIterator(name string, spec *ebpf.ProgramSpec, program *ebpf.Program) error {
	options := link.IterOptions{Program: program}
	if spec.AttachTo == "bpf_map_elem" {
		options.Map = r.probe.maps[iteratedMap(name)]
	}
	iterator, err := link.AttachIter(options)
	if err != nil {
		return err
	}
	r.iterators[name] = iterator
	return nil
}

// iteratedMap is the table that an iterator named count_<table> walks.
func iteratedMap(program string) string {
	_, table, _ := strings.Cut(program, "_")
	return table
}

func (r *rungState) close() {
	errs := []error{closeLinks(r.links)}
	for _, iterator := range r.iterators {
		errs = append(errs, iterator.Close())
	}
	for _, program := range r.programs {
		errs = append(errs, program.Close())
	}
	if err := errors.Join(errs...); err != nil {
		r.probe.log.Warn("cannot close what a refused rung left", "err", err)
	}
}
