// SPDX-License-Identifier: Apache-2.0

// Package flood fills the rings of the detail stream with events that nothing
// caused, for tests: more than a machine can make by real work.
package flood

import (
	"fmt"

	"github.com/cilium/ebpf"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -no-global-types bpf flood.bpf.c -- -O2 -g -Wall -Werror -mcpu=v3 -I../../bpf -I../../bpf/vmlinux

// Flood makes events of the process probe, of the kind exec.
type Flood struct {
	program *ebpf.Program
	close   func()
}

// New loads the program with the maps that lookup knows, which are those the
// probes share, and their constants. It needs Linux 5.17.
func New(lookup func(name string) *ebpf.Map, constants map[string]any) (*Flood, error) {
	spec, err := loadBpf()
	if err != nil {
		return nil, fmt.Errorf("read the program: %w", err)
	}
	for name, value := range constants {
		if v := spec.Variables[name]; v != nil {
			if err := v.Set(value); err != nil {
				return nil, fmt.Errorf("set %s: %w", name, err)
			}
		}
	}
	shared := map[string]*ebpf.Map{}
	for name := range spec.Maps {
		if m := lookup(name); m != nil {
			shared[name] = m
		}
	}
	collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: shared})
	if err != nil {
		return nil, fmt.Errorf("load the program: %w", err)
	}
	return &Flood{program: collection.Programs["on_flood"], close: collection.Close}, nil
}

// Run makes so many events, of so many executables: /00000, /10000 and so on.
func (f *Flood) Run(events, keys uint32) error {
	context := struct{ Events, Keys uint32 }{events, keys}
	if _, err := f.program.Run(&ebpf.RunOptions{Context: context}); err != nil {
		return fmt.Errorf("make %d events: %w", events, err)
	}
	return nil
}

// Close unloads the program.
func (f *Flood) Close() { f.close() }
