// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"security-exporter/internal/metric"
)

// Asks adjtimex(2), which changes nothing when no mode is set.

func timeCollector() Spec {
	return timeWith(func() (state int, status int32, err error) {
		var t unix.Timex
		state, err = unix.Adjtimex(&t)
		return state, t.Status, err
	})
}

func timeWith(ask func() (state int, status int32, err error)) Spec {
	synchronized := metric.NewState("linux_security_time_synchronized",
		"Whether a time service keeps the clock of the kernel right.")
	return Spec{
		Name:    "time",
		Help:    "Whether the clock is synchronised.",
		Metrics: []*metric.Metric{synchronized},
		Collect: func(_ context.Context, _ *Input, out *metric.Batch) error {
			state, status, err := ask()
			if err != nil {
				return fmt.Errorf("adjtimex: %w", err)
			}
			out.Bool(synchronized, state != unix.TIME_ERROR && status&unix.STA_UNSYNC == 0)
			return nil
		},
	}
}
