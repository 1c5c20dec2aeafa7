// SPDX-License-Identifier: Apache-2.0

package sample

import (
	"slices"
	"testing"
	"time"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// kernel is the other side: it keeps one in rate of what is produced.
type kernel struct {
	now  time.Time
	kept float64
}

// run produces events at a rate per second for one interval each, and returns
// the sample rate after each.
func run(s *Sampler, perSecond ...float64) []uint32 {
	k := kernel{now: start}
	s.Tick(k.now, 0)
	var got []uint32
	for _, n := range perSecond {
		for range 10 {
			k.now = k.now.Add(time.Second)
			k.kept += n / float64(s.Rate())
			s.Tick(k.now, uint64(k.kept))
		}
		got = append(got, s.Rate())
	}
	return got
}

func TestSteps(t *testing.T) {
	t.Parallel()
	const target = 5000
	repeat := func(n int, v float64) []float64 { return slices.Repeat([]float64{v}, n) }
	for _, c := range []struct {
		name    string
		s       Settings
		produce []float64
		want    []uint32
	}{
		{"idle stays at the floor", Settings{Rate: 1, Fixed: false, Target: target}, repeat(3, 0), []uint32{1, 1, 1}},
		{"on target nothing changes", Settings{Rate: 4, Fixed: false, Target: target}, repeat(2, 4*target), []uint32{4, 4}},
		{"exactly twice is not above", Settings{Rate: 1, Fixed: false, Target: target}, repeat(2, 2*target), []uint32{1, 1}},
		{"just above twice", Settings{Rate: 1, Fixed: false, Target: target}, []float64{2*target + 1, 2*target + 1}, []uint32{2, 2}},
		{"exactly half is not below", Settings{Rate: 2, Fixed: false, Target: target}, repeat(2, target), []uint32{2, 2}},
		{"just below half", Settings{Rate: 2, Fixed: false, Target: target}, []float64{target - 2, target - 2}, []uint32{1, 1}},
		{"a flood doubles until it fits", Settings{Rate: 1, Fixed: false, Target: target}, repeat(9, 1_000_000), []uint32{2, 4, 8, 16, 32, 64, 128, 128, 128}},
		{"the ceiling", Settings{Rate: 4096, Fixed: false, Target: 1}, repeat(4, 1e9), []uint32{8192, 10_000, 10_000, 10_000}},
		{"recovery from the ceiling", Settings{Rate: 10_000, Fixed: false, Target: target}, repeat(14, 100),
			[]uint32{5000, 2500, 1250, 625, 312, 156, 78, 39, 19, 9, 4, 2, 1, 1}},
		{"recovery stops where it fits", Settings{Rate: 64, Fixed: false, Target: target}, repeat(4, 40_000), []uint32{32, 16, 16, 16}},
		{"a flood and its end", Settings{Rate: 1, Fixed: false, Target: target}, append(repeat(3, 80_000), repeat(4, 10)...), []uint32{2, 4, 8, 4, 2, 1, 1}},
		{"fixed stays in a flood", Settings{Rate: 7, Fixed: true, Target: target}, repeat(3, 1e9), []uint32{7, 7, 7}},
		{"fixed stays when idle", Settings{Rate: 7, Fixed: true, Target: target}, repeat(3, 0), []uint32{7, 7, 7}},
		{"a start below the floor", Settings{Rate: 0, Fixed: false, Target: target}, repeat(1, 0), []uint32{1}},
		{"a start above the ceiling", Settings{Rate: 20_000, Fixed: true, Target: target}, repeat(1, 0), []uint32{10_000}},
		{"no target is a target of one", Settings{Rate: 1, Fixed: false, Target: 0}, []float64{2, 3}, []uint32{1, 2}},
	} {
		if got := run(New(c.s), c.produce...); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestTicks(t *testing.T) {
	t.Parallel()
	type tick struct {
		at   time.Duration
		kept uint64
	}
	second := time.Second
	for _, c := range []struct {
		name  string
		ticks []tick
		want  uint32
	}{
		{"what was kept before the first tick is no volume", []tick{{0, 1e9}, {10 * second, 1e9 + 10_000}}, 8},
		{"nothing before an interval has passed", []tick{{0, 0}, {Interval - 1, 1e9}}, 8},
		{"then at once", []tick{{0, 0}, {Interval, 1e9}}, 16},
		{"early ticks do not restart it", []tick{{0, 0}, {6 * second, 0}, {12 * second, 1e9}}, 16},
		{"a late tick is one step, over the time that passed", []tick{{0, 0}, {100 * second, 100 * 2001}}, 16},
		{"late and on target", []tick{{0, 0}, {100 * second, 100 * 1000}}, 8},
		{"a clock that goes back starts again", []tick{{20 * second, 0}, {0, 1e9}, {Interval - 1, 2e9}}, 8},
		{"and goes on", []tick{{20 * second, 0}, {0, 1e9}, {Interval, 2e9}}, 16},
		{"a count that goes back starts again", []tick{{0, 1e9}, {Interval, 5}, {Interval + 9*second, 1e9}}, 8},
		{"and goes on", []tick{{0, 1e9}, {Interval, 5}, {2 * Interval, 1e9}}, 16},
	} {
		s := New(Settings{Rate: 8, Target: 1000})
		for _, tick := range c.ticks {
			if got := s.Tick(start.Add(tick.at), tick.kept); got != s.Rate() {
				t.Errorf("%s: Tick says %d, Rate %d", c.name, got, s.Rate())
			}
		}
		if s.Rate() != c.want {
			t.Errorf("%s: rate %d, want %d", c.name, s.Rate(), c.want)
		}
	}
}
