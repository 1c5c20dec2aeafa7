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
	if s.periods%sweepPeriods != 0 || connections(p) == 0 {
		return nil
	}
	return sweepSockets(p)
}

// sweepSockets does nothing where no program can.
func sweepSockets(p *probe.Probe) error {
	for _, name := range []string{"walk_sockets", "sweep_sockets"} {
		if p.Runs(name) {
			_, err := p.Iterate(name, 1)
			return err
		}
	}
	return nil
}
