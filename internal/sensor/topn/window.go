// SPDX-License-Identifier: Apache-2.0

package topn

import "time"

// subWindows is how many parts a window has. It slides by whole parts, so a
// window of 10 minutes shows the last 9 to 10 minutes.
const subWindows = 10

// window holds one ranking: the parts of the sliding window, and what came
// before the running part.
type window struct {
	parts   [subWindows]*Summary
	running int
	earlier *Summary // everything since the start but the running part
}

func newWindow(capacity int) *window {
	w := &window{earlier: NewSummary(capacity)}
	for i := range w.parts {
		w.parts[i] = NewSummary(capacity)
	}
	return w
}

func (w *window) add(key []byte, weight uint32) { w.parts[w.running].Add(key, weight) }

// slide ends the running part and begins the next one, steps times.
func (w *window) slide(steps int64) {
	if w.parts[w.running].Len() > 0 {
		w.earlier.Merge(w.parts[w.running])
	}
	for range min(steps, subWindows) {
		w.running = (w.running + 1) % subWindows
		w.parts[w.running].Reset()
	}
}

// last merges the newest parts, 1 to subWindows of them.
func (w *window) last(capacity, parts int) merged {
	var in [subWindows]*Summary
	for i := range parts {
		in[i] = w.parts[(w.running-i+subWindows)%subWindows]
	}
	return merge(capacity, in[:parts]...)
}

func (w *window) sinceStart(capacity int) merged {
	return merge(capacity, w.earlier, w.parts[w.running])
}

// clock tells which part of the window it is: time never goes back, also when
// the events of several CPUs arrive out of order.
type clock struct {
	part    time.Duration
	current int64
	started bool
}

// advance returns by how many parts time has moved.
func (c *clock) advance(now time.Duration) int64 {
	at := int64(now / c.part)
	if !c.started {
		c.started, c.current = true, at
		return 0
	}
	steps := at - c.current
	if steps <= 0 {
		return 0
	}
	c.current = at
	return steps
}
