// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"
	"io"
)

// Iterate runs an attached iterator program to its end and returns what it
// wrote, at most limit bytes. It runs in the calling thread's namespaces.
func (p *Probe) Iterate(name string, limit int64) ([]byte, error) {
	iterator := p.iterators[name]
	if iterator == nil {
		return nil, fmt.Errorf("iterator %s is not available", name)
	}
	run, err := iterator.Open()
	if err != nil {
		return nil, fmt.Errorf("open iterator %s: %w", name, err)
	}
	defer run.Close()
	out, err := io.ReadAll(io.LimitReader(run, limit))
	if err != nil {
		return nil, fmt.Errorf("run iterator %s: %w", name, err)
	}
	return out, nil
}
