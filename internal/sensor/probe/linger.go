// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// linger lets the kernel end perf events on its own time. The last reference
// to one waits for two grace periods under a lock that all of them share, some
// 50 ms for each, and so does the end of a process that still has them open. A
// map of perf events holds a reference too, and drops it in the background
// (kernel/bpf/arraymap.c, perf_event_fd_array_release). The programs are off
// at once in any case: closing their link takes them from the event.
type linger struct {
	maps []*ebpf.Map
	used uint32 // entries of the last map
}

// hold takes a reference to the perf event of a link, if it has one.
func (l *linger) hold(attached link.Link) error {
	perf, ok := attached.(link.PerfEvent)
	if !ok {
		return nil
	}
	if len(l.maps) == 0 || l.used == l.maps[len(l.maps)-1].MaxEntries() {
		if err := l.grow(); err != nil {
			return fmt.Errorf("make a map of perf events: %w", err)
		}
	}
	file, err := perf.PerfEvent()
	if err != nil {
		return fmt.Errorf("perf event of a link: %w", err)
	}
	defer file.Close()
	if err := l.maps[len(l.maps)-1].Put(l.used, uint32(file.Fd())); err != nil {
		return fmt.Errorf("hold a perf event: %w", err)
	}
	l.used++
	return nil
}

// grow adds a map. The library limits its size to one entry for each CPU.
func (l *linger) grow() error {
	added, err := ebpf.NewMap(&ebpf.MapSpec{Name: "perf_events", Type: ebpf.PerfEventArray, KeySize: 4, ValueSize: 4})
	if err != nil {
		return err
	}
	l.maps, l.used = append(l.maps, added), 0
	return nil
}

func (l *linger) close() error {
	var errs []error
	for _, m := range l.maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// closeLinks detaches programs together: each waits for a grace period of its
// own, and the kernel ends those that wait at the same time with one.
func closeLinks(links []link.Link) error {
	errs := make([]error, len(links))
	var closing sync.WaitGroup
	for i, l := range links {
		closing.Go(func() { errs[i] = l.Close() })
	}
	closing.Wait()
	return errors.Join(errs...)
}
