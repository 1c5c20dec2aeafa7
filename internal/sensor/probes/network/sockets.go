// SPDX-License-Identifier: Apache-2.0

package network

import "security-exporter/internal/sensor/probe"

// sweepPeriods is how many periods pass between two sweeps: a minute.
const sweepPeriods = 12

// socketSweeper takes connections out of the table whose end no program was
// told of. One goroutine may use it.
type socketSweeper struct{ periods int }

func (s *socketSweeper) sweep(p *probe.Probe) error {
	s.periods++
	if s.periods%sweepPeriods != 0 || !p.Runs("sweep_sockets") || connections(p) == 0 {
		return nil
	}
	_, err := p.Iterate("sweep_sockets", 1)
	return err
}
