// SPDX-License-Identifier: Apache-2.0

// Package soak runs the exporter under load for a long time, life after life,
// and looks for what it leaks: memory and files while it lives, and BPF
// objects after it has ended or was killed.
package soak

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"security-exporter/internal/testkit"
)

// variable says how long to run, as 20m. Without it the test is over soon, and
// asks only what shows at once.
const variable = "SOAK"

const (
	short    = 4 * time.Second
	scrapers = 3
)

func TestSoak(t *testing.T) {
	testkit.RequireBPF(t)
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	total, lives := short, 2 // each attaches and detaches all probes
	if text := os.Getenv(variable); text != "" {
		var err error
		if total, err = time.ParseDuration(text); err != nil || total < short {
			t.Fatalf("%s=%s: want a duration of at least %s", variable, text, short)
		}
		lives = max(6, int(total/(2*time.Minute)))
	}
	folder := t.TempDir()
	program := build(t, folder)
	load := startLoad(t, folder)
	objects := -1
	for life := range lives {
		e := start(t, program, folder)
		first := e.settledObjects(t)
		if n := first.count(); objects >= 0 && n != objects {
			t.Errorf("life %d: %d BPF objects, the one before had %d", life, n, objects)
		}
		objects = first.count()
		usage := live(t, e, total/time.Duration(lives))
		last := e.settledObjects(t)
		if a, b := first.count(), last.count(); a != b {
			t.Errorf("life %d: %d BPF objects at its end, %d at its start: %v", life, b, a, last.more(first))
		}
		// Killed, it has no time to clean up.
		signal := syscall.SIGTERM
		if life%2 == 1 {
			signal = syscall.SIGKILL
		}
		e.end(t, signal)
		last.expectGone(t)
		t.Logf("life %d: %s; %d BPF objects, ended by %s", life, usage, objects, signal)
	}
	t.Logf("load: %s", load.stop(t))
}

// live scrapes an exporter and samples its usage for a time.
func live(t *testing.T, e *exporter, long time.Duration) usage {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	var working sync.WaitGroup
	for range scrapers {
		working.Go(func() {
			for last := (counters{}); ctx.Err() == nil; pause(ctx, 500*time.Millisecond) {
				now, err := e.scrape()
				if err != nil {
					t.Errorf("scrape: %v", err)
					return
				}
				for _, text := range now.lessThan(last) {
					t.Errorf("a counter has gone back: %s", text)
				}
				last = now
			}
		})
	}
	var u usage
	for ctx.Err() == nil {
		u.add(t, e.pid())
		// The rules of the file probe are put in force again while files are read.
		if len(u.files)%5 == 2 {
			e.reload(t)
		}
		pause(ctx, time.Second)
	}
	working.Wait()
	u.judge(t)
	return u
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// usage are samples of what a process has in use.
type usage struct{ resident, files []int }

func (u *usage) add(t *testing.T, pid int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	var size, resident int
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	u.resident = append(u.resident, resident*os.Getpagesize())
	u.files = append(u.files, len(files))
}

// What may come between the second and the last quarter of a life: the heap
// breathes, and connections come and go.
const (
	moreMemory = 8 << 20
	moreFiles  = 2*scrapers + 4
)

func (u *usage) judge(t *testing.T) {
	t.Helper()
	const few = 12 // samples, one each second: too early to tell
	n := len(u.resident)
	if n < few {
		return
	}
	for name, c := range map[string]struct {
		samples []int
		more    int
		of      func([]int) int
		which   string
	}{
		"resident memory": {u.resident, moreMemory, slices.Max[[]int], "most"},
		// Up to 256 are open for a moment while the kernel is asked what they
		// are: what leaks is never closed.
		"open files": {u.files, moreFiles, slices.Min[[]int], "least"},
	} {
		second, last := c.of(c.samples[n/4:n/2]), c.of(c.samples[n*3/4:])
		if last > second+c.more {
			t.Errorf("%s: at %s %d in the second quarter, %d in the last", name, c.which, second, last)
		}
	}
}

func (u usage) String() string {
	return fmt.Sprintf("%d samples, at most %.1f MiB resident, %d files", len(u.resident), float64(slices.Max(u.resident))/(1<<20), slices.Max(u.files))
}
