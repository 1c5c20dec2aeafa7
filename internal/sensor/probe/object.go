// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// parse reads the embedded object and puts the settings in.
func (p *Probe) parse() (*ebpf.CollectionSpec, error) {
	object, err := p.spec.Load()
	if err != nil {
		return nil, fmt.Errorf("parse the embedded object: %w", err)
	}
	for name, value := range p.settings.Constants {
		if v, ok := object.Variables[name]; ok {
			if err := v.Set(value); err != nil {
				return nil, fmt.Errorf("set constant %s: %w", name, err)
			}
		}
	}
	if !p.host.RingBuffers {
		withoutRings(object)
	}
	if !p.host.HasHelper(helperOf512) {
		withoutGlobalPointers(object)
	}
	if !p.host.Swaps {
		withoutSwaps(object)
	}
	if !p.host.Slots {
		withoutSlots(object)
	}
	if casts, ok := object.Variables["casts"]; ok {
		if err := casts.Set(p.host.casts); err != nil {
			return nil, fmt.Errorf("set constant casts: %w", err)
		}
	}
	if !p.host.casts {
		withoutCasts(object)
	}
	if !p.host.hasTracing() {
		p.host.withoutHelpers(object)
	}
	for name, entries := range p.settings.MaxEntries {
		if m, ok := object.Maps[name]; ok {
			m.MaxEntries = entries
		}
	}
	if p.settings.Edit != nil {
		p.settings.Edit(object)
	}
	return object, nil
}
