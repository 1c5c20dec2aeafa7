// SPDX-License-Identifier: Apache-2.0

package testkit

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	"security-exporter/internal/sensor/event"
	"security-exporter/internal/sensor/probe"
)

// WithEvents turns on the detail stream, with all kinds of events.
func WithEvents(settings probe.Settings) probe.Settings {
	settings.Constants["stream"], settings.Constants["detailed"] = true, true
	return settings
}

// Events takes what the rings of a probe hold, the serious ones first. What
// the events point to is theirs.
func Events(t testing.TB, p *probe.Probe) []event.Event {
	t.Helper()
	return append(drain(t, p.Map("serious_events"), true), drain(t, p.Map("events"), false)...)
}

func drain(t testing.TB, ring *ebpf.Map, serious bool) []event.Event {
	t.Helper()
	reader, err := ringbuf.NewReader(ring)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	reader.SetDeadline(time.Now())
	var out []event.Event
	for {
		record, err := reader.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		e := event.Event{}
		if err := e.Decode(bytes.Clone(record.RawSample)); err != nil {
			t.Fatal(err)
		}
		e.Serious = serious
		out = append(out, e)
	}
}

// OfKind are those events of a kind.
func OfKind(events []event.Event, kind event.Kind) []event.Event {
	return slices.DeleteFunc(slices.Clone(events), func(e event.Event) bool { return e.Kind != kind })
}
