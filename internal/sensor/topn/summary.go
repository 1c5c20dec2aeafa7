// SPDX-License-Identifier: Apache-2.0

// Package topn says who did most of it: weighted Space-Saving summaries
// (Metwally, Agrawal, El Abbadi 2005), over a sliding window and since the
// start, one for each ranking. Summaries merge without losing their bound
// (Agrawal et al. 2012), which is how the window slides and the total grows.
//
// In reading order: Summary, Merge, window, Rankings, Metrics.
package topn

import (
	"bytes"
	"hash/maphash"
)

// MaxKeyBytes is how much of a key is told apart; what follows is cut off.
const MaxKeyBytes = 200

// Summary counts the heaviest keys of a stream in fixed memory. For each key
// that it holds, Count-Error <= truth <= Count; the truth of any other key is
// at most Floor, and Floor and every Error are at most Total/capacity.
//
// It is not safe for concurrent use. After New nothing is allocated.
type Summary struct {
	slots []slot
	keys  []byte // MaxKeyBytes for each slot
	// heap holds slot numbers, the smallest count first.
	heap []int32
	// table finds a slot by its key: open addressing, linear probing, slot
	// number + 1, 0 for none. It is a power of two and at most half full.
	table []int32
	seed  maphash.Seed
	total uint64
	floor uint64
}

type slot struct {
	hash     uint64
	count    uint64
	err      uint64
	variance float64
	heap     int32 // position in the heap
	size     int32 // of the key
}

// NewSummary returns an empty summary of at least one key.
func NewSummary(capacity int) *Summary {
	capacity = max(1, capacity)
	size := 2
	for size < 2*capacity {
		size *= 2
	}
	return &Summary{
		slots: make([]slot, 0, capacity),
		keys:  make([]byte, capacity*MaxKeyBytes),
		heap:  make([]int32, 0, capacity),
		table: make([]int32, size),
		seed:  maphash.MakeSeed(),
	}
}

// Len is the number of keys held.
func (s *Summary) Len() int { return len(s.slots) }

// Total is the sum of all weights added.
func (s *Summary) Total() uint64 { return s.total }

// Floor is the most that a key which is not held can have.
func (s *Summary) Floor() uint64 { return s.floor }

// Reset forgets everything and keeps the memory.
func (s *Summary) Reset() {
	s.slots, s.heap = s.slots[:0], s.heap[:0]
	clear(s.table)
	s.total, s.floor = 0, 0
}

// Add counts weight more for a key: O(log capacity). The key is copied.
//
// A weight above 1 says that one event was kept of that many. If each was
// kept with the same chance, independently, w*(w-1) is what this one adds to
// the variance of the estimate; see Entry.Deviation.
func (s *Summary) Add(key []byte, weight uint32) {
	if weight == 0 {
		return
	}
	w := float64(weight)
	s.add(key, uint64(weight), 0, w*(w-1))
}

func (s *Summary) add(key []byte, count, err uint64, variance float64) {
	key = key[:min(len(key), MaxKeyBytes)]
	s.total += count
	hash := maphash.Bytes(s.seed, key)
	place, found := s.find(hash, key)
	if found {
		held := &s.slots[s.table[place]-1]
		held.count += count
		held.err += err
		held.variance += variance
		s.sink(held.heap)
		return
	}
	if len(s.slots) < cap(s.slots) {
		n := int32(len(s.slots))
		s.slots = append(s.slots, slot{
			hash: hash, count: s.floor + count, err: s.floor + err, variance: variance,
			heap: n, size: int32(copy(s.room(n), key)),
		})
		s.heap = append(s.heap, n)
		s.table[place] = n + 1
		s.rise(n)
		return
	}
	s.replace(hash, key, count, err, variance)
}

// replace gives the slot of the smallest count to a new key, which may have
// had all of that count before.
func (s *Summary) replace(hash uint64, key []byte, count, err uint64, variance float64) {
	n := s.heap[0]
	held := &s.slots[n]
	s.forget(held.hash, n)
	s.floor = max(s.floor, held.count)
	held.hash, held.count, held.err = hash, s.floor+count, s.floor+err
	held.variance += variance
	held.size = int32(copy(s.room(n), key))
	place, _ := s.find(hash, key)
	s.table[place] = n + 1
	s.sink(0)
}

func (s *Summary) room(n int32) []byte {
	return s.keys[int(n)*MaxKeyBytes : (int(n)+1)*MaxKeyBytes]
}

func (s *Summary) key(n int32) []byte { return s.room(n)[:s.slots[n].size] }

// find returns where in the table the key is, or where it belongs.
func (s *Summary) find(hash uint64, key []byte) (place int, found bool) {
	mask := len(s.table) - 1
	for place = int(hash) & mask; s.table[place] != 0; place = (place + 1) & mask {
		n := s.table[place] - 1
		if s.slots[n].hash == hash && bytes.Equal(s.key(n), key) {
			return place, true
		}
	}
	return place, false
}

// forget takes slot n out of the table and closes the gap, so that probing
// needs no tombstones (Knuth, volume 3, 6.4, algorithm R).
func (s *Summary) forget(hash uint64, n int32) {
	mask := len(s.table) - 1
	gap := int(hash) & mask
	for s.table[gap] != n+1 {
		gap = (gap + 1) & mask
	}
	for next := (gap + 1) & mask; s.table[next] != 0; next = (next + 1) & mask {
		home := int(s.slots[s.table[next]-1].hash) & mask
		// It may move if its home is not between the gap and where it is.
		if (next-home)&mask >= (next-gap)&mask {
			s.table[gap] = s.table[next]
			gap = next
		}
	}
	s.table[gap] = 0
}

func (s *Summary) swap(a, b int32) {
	s.heap[a], s.heap[b] = s.heap[b], s.heap[a]
	s.slots[s.heap[a]].heap, s.slots[s.heap[b]].heap = a, b
}

func (s *Summary) less(a, b int32) bool { return s.slots[s.heap[a]].count < s.slots[s.heap[b]].count }

func (s *Summary) sink(at int32) {
	for {
		child := 2*at + 1
		if child >= int32(len(s.heap)) {
			return
		}
		if right := child + 1; right < int32(len(s.heap)) && s.less(right, child) {
			child = right
		}
		if !s.less(child, at) {
			return
		}
		s.swap(at, child)
		at = child
	}
}

func (s *Summary) rise(at int32) {
	for at > 0 && s.less(at, (at-1)/2) {
		s.swap(at, (at-1)/2)
		at = (at - 1) / 2
	}
}
