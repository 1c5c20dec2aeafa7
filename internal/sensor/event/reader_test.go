// SPDX-License-Identifier: Apache-2.0

package event_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/sensor/event"
	"security-exporter/internal/testkit"
	"security-exporter/internal/testkit/flood"
)

// TestReaderSleeps: after a quiet time nobody looks at the ring any more, and
// still the next event is handed over at once, and so are those behind it.
func TestReaderSleeps(t *testing.T) {
	testkit.RequireBPF(t)
	maps := map[string]*ebpf.Map{}
	for _, spec := range []*ebpf.MapSpec{
		{Name: "events", Type: ebpf.RingBuf, MaxEntries: 1 << 19},
		{Name: "sleeping_readers", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 2},
	} {
		m, err := ebpf.NewMap(spec)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = m.Close() })
		maps[spec.Name] = m
	}
	source, err := flood.New(func(name string) *ebpf.Map { return maps[name] }, nil)
	if err != nil {
		testkit.Missing(t, "needs Linux 5.17: %v", err)
	}
	t.Cleanup(source.Close)
	reader, err := event.NewReader(maps["events"], maps["sleeping_readers"], false)
	if err != nil {
		t.Fatal(err)
	}
	var handled atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		reader.Run(func(*event.Event) { handled.Add(1) }, func(err error) { t.Error(err) })
	}()
	t.Cleanup(func() {
		_ = reader.Close()
		<-ended
	})
	sleeps := func() bool {
		var flag uint32
		if err := maps["sleeping_readers"].Lookup(uint32(abi.ReaderFrequent), &flag); err != nil {
			t.Fatal(err)
		}
		return flag == 1
	}
	within := func(what string, limit time.Duration, is func() bool) {
		t.Helper()
		for end := time.Now().Add(limit); !is(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not within %v: %s; %d handled", limit, what, handled.Load())
			}
		}
	}
	const more = 200 // far less than wakes the reader
	for range 3 {
		within("sleep", 5*time.Second, sleeps)
		time.Sleep(700 * time.Millisecond) // now it looks again in half a minute
		want := handled.Load() + 1
		if err := source.Run(1, 1); err != nil {
			t.Fatal(err)
		}
		within("the event that wakes it", 2*time.Second, func() bool { return handled.Load() == want })
		want += more
		if err := source.Run(more, 1); err != nil {
			t.Fatal(err)
		}
		within("the events behind it", 2*time.Second, func() bool { return handled.Load() == want })
	}
}
