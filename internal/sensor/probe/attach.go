// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
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

func (r *rungState) attach(name string) error {
	spec, ok := r.probe.object.Programs[name]
	if !ok {
		return fmt.Errorf("the object has no such program")
	}
	if err := r.probe.host.canAttach(spec); err != nil {
		return err
	}
	program, err := r.probe.loadProgram(name)
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	r.programs[name] = program
	if spec.Type == ebpf.Tracing && spec.AttachType == ebpf.AttachTraceIter {
		return r.attachIterator(name, spec, program)
	}
	attached, err := r.link(spec, program)
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	r.links = append(r.links, attached)
	return nil
}

// loadProgram loads one program of the object on top of the maps that exist.
func (p *Probe) loadProgram(name string) (*ebpf.Program, error) {
	one := p.object.Copy()
	for other := range one.Programs {
		if other != name {
			delete(one.Programs, other)
		}
	}
	collection, err := ebpf.NewCollectionWithOptions(one, ebpf.CollectionOptions{
		MapReplacements: p.maps,
		Programs:        ebpf.ProgramOptions{KernelTypes: p.host.BTF},
	})
	if err != nil {
		return nil, err
	}
	defer collection.Close()
	return collection.DetachProgram(name), nil
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
		return link.Tracepoint(group, event, program, nil)
	case ebpf.Kprobe:
		if strings.HasPrefix(spec.SectionName, "kretprobe/") {
			return link.Kretprobe(spec.AttachTo, program, nil)
		}
		return link.Kprobe(spec.AttachTo, program, nil)
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
		return fmt.Errorf("attach: %w", err)
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
	var errs []error
	for _, l := range r.links {
		errs = append(errs, l.Close())
	}
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
