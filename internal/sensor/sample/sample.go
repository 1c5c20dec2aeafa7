// SPDX-License-Identifier: Apache-2.0

// Package sample decides how many detail events the kernel keeps: one in N.
// It is pure: the caller reads the kernel's count of kept events, tells the
// time, and writes the rate back. Counters are never sampled.
package sample

import (
	"cmp"
	"time"
)

// The limits of a rate, and how often it is looked at.
const (
	MinRate  = 1
	MaxRate  = 10_000
	Interval = 10 * time.Second
)

// Settings are those of the flags.
type Settings struct {
	// Rate is the first one, within MinRate and MaxRate.
	Rate uint32
	// Fixed pins the rate.
	Fixed bool
	// Target is the volume to aim at, in events kept per second.
	Target int
	// Interval is how often the volume is looked at; 0: the constant.
	Interval time.Duration
}

// Sampler adapts a rate. Use it from one goroutine.
type Sampler struct {
	settings Settings
	rate     uint32
	since    time.Time // of the running interval
	kept     uint64    // at since
	started  bool
}

// New returns a sampler with the starting rate. A rate outside of the limits
// is moved to the nearest; a target below 1 is 1.
func New(s Settings) *Sampler {
	s.Target, s.Interval = max(s.Target, 1), cmp.Or(s.Interval, Interval)
	return &Sampler{settings: s, rate: min(max(s.Rate, MinRate), MaxRate)}
}

// Rate is the rate in effect: one event in so many is kept.
func (s *Sampler) Rate() uint32 { return s.rate }

// Tick looks at the volume when an Interval has passed since it last did, and
// returns the rate to use from now on. kept is the number of events kept
// after sampling and before the budget, since any moment in the past: it only
// grows. A volume above twice the target doubles the rate, one below half of
// it halves the rate. However late a Tick comes, it is one step.
//
// The first Tick starts the first interval. After a clock or a count that
// went back, a new interval starts and the rate stays.
func (s *Sampler) Tick(now time.Time, kept uint64) uint32 {
	elapsed := now.Sub(s.since)
	if s.started && elapsed >= 0 && elapsed < s.settings.Interval && kept >= s.kept {
		return s.rate
	}
	if s.started && elapsed >= s.settings.Interval && kept >= s.kept {
		s.step(float64(kept-s.kept) / elapsed.Seconds())
	}
	s.since, s.kept, s.started = now, kept, true
	return s.rate
}

func (s *Sampler) step(perSecond float64) {
	target := float64(s.settings.Target)
	switch {
	case s.settings.Fixed:
	case perSecond > 2*target:
		s.rate = min(2*s.rate, MaxRate)
	case perSecond < target/2:
		s.rate = max(s.rate/2, MinRate)
	}
}
