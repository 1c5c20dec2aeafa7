// SPDX-License-Identifier: Apache-2.0

package client

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"security-exporter/internal/api"
)

func statusCommand(_ *kingpin.Application, flags *common) func(context.Context, IO) error {
	return func(ctx context.Context, std IO) error {
		c, err := connect(*flags.address)
		if err != nil {
			return err
		}
		data, err := c.get(ctx, api.StatusPath, nil)
		if err != nil {
			return err
		}
		var s api.Status
		if err := json.Unmarshal(data, &s); err != nil {
			return fmt.Errorf("%s: is no answer of security-exporter: %w", c.address, err)
		}
		if *flags.json {
			return writeJSON(std.Out, data)
		}
		return writeStatus(std.Out, s, time.Now())
	}
}

// writeJSON writes an answer, which is one line. JSON escapes control
// characters, but not all that a terminal should not see.
func writeJSON(w io.Writer, data []byte) error {
	_, err := io.WriteString(w, clean(strings.TrimRight(string(data), "\n"))+"\n")
	return err
}

func writeStatus(w io.Writer, s api.Status, now time.Time) error {
	var b strings.Builder
	ready := "ready"
	if len(s.NotReady) > 0 {
		ready = "not ready: " + strings.Join(s.NotReady, ", ")
	}
	fmt.Fprintf(&b, "version  %s (commit %s)\n", clean(s.Version), clean(s.Revision))
	fmt.Fprintf(&b, "up       %v, %s\n", now.Sub(s.Started).Round(time.Second), clean(ready))
	fmt.Fprintf(&b, "runtime  %s, sample rate %g\n", clean(s.Runtime.State), s.Runtime.SampleRate)
	var dropped []string
	for _, output := range slices.Sorted(maps.Keys(s.Runtime.Dropped)) {
		if n := s.Runtime.Dropped[output]; n > 0 {
			dropped = append(dropped, fmt.Sprintf("%s %.0f", clean(output), n))
		}
	}
	if len(dropped) > 0 {
		fmt.Fprintf(&b, "dropped  %s\n", strings.Join(dropped, ", "))
	}
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	if len(s.Runtime.Probes) > 0 {
		fmt.Fprintf(t, "\nPROBE\tSTATE\tPER SECOND\tDETAIL EVENTS\tSAMPLED OUT\tLOST\tHOOKS OR REASON\n")
	}
	for _, p := range s.Runtime.Probes {
		fmt.Fprintf(t, "%s\t%s\t%.1f\t%.0f\t%.0f\t%.0f\t%s\n", clean(p.Name), clean(p.State), p.EventsPerSecond, p.Events, p.Sampled, p.Lost, clean(cmp.Or(p.Hook, p.Reason)))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(s.Collectors) > 0 {
		fmt.Fprintf(t, "\nCOLLECTOR\tSTATE\tTOOK\n")
	}
	for _, c := range s.Collectors {
		state := "ok"
		if !c.Success {
			state = "failed"
		}
		fmt.Fprintf(t, "%s\t%s\t%v\n", clean(c.Name), state, time.Duration(c.DurationSeconds*float64(time.Second)).Round(10*time.Microsecond))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(w, b.String())
	return err
}
