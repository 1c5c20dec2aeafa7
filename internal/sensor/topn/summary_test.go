// SPDX-License-Identifier: Apache-2.0

package topn

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// checkBounds compares a summary with the truth: what it holds is within its
// error, what it does not hold below the floor, and both below total/capacity.
func checkBounds(t *testing.T, m merged, capacity int, truth map[string]uint64) {
	t.Helper()
	total := uint64(0)
	for _, n := range truth {
		total += n
	}
	if m.total != total {
		t.Fatalf("total %d, want %d", m.total, total)
	}
	if m.floor > total/uint64(capacity) {
		t.Fatalf("floor %d is above %d/%d", m.floor, total, capacity)
	}
	if len(m.entries) > capacity {
		t.Fatalf("%d entries, capacity %d", len(m.entries), capacity)
	}
	held := map[string]bool{}
	for _, e := range m.entries {
		want := truth[e.key]
		if held[e.key] {
			t.Fatalf("%q comes twice", e.key)
		}
		held[e.key] = true
		if e.count < want || e.count-e.err > want || e.err > total/uint64(capacity) {
			t.Fatalf("%q: count %d, error %d, truth %d, total %d", e.key, e.count, e.err, want, total)
		}
	}
	for key, n := range truth {
		if !held[key] && n > m.floor {
			t.Fatalf("%q: not held with %d, floor %d", key, n, m.floor)
		}
	}
}

// checkShape looks at the heap and the table themselves.
func checkShape(t *testing.T, s *Summary) {
	t.Helper()
	for i := range s.heap {
		if i > 0 && s.less(int32(i), int32((i-1)/2)) {
			t.Fatalf("heap out of order at %d", i)
		}
		if s.slots[s.heap[i]].heap != int32(i) {
			t.Fatalf("slot %d does not know its place", s.heap[i])
		}
	}
	full := 0
	for _, n := range s.table {
		if n != 0 {
			full++
		}
	}
	if full != s.Len() || len(s.heap) != s.Len() {
		t.Fatalf("%d slots, %d in the table, %d in the heap", s.Len(), full, len(s.heap))
	}
	for n := range s.slots {
		if at, found := s.find(s.slots[n].hash, s.key(int32(n))); !found || s.table[at] != int32(n)+1 {
			t.Fatalf("slot %d is not found", n)
		}
	}
}

func TestSummarySteps(t *testing.T) {
	t.Parallel()
	type add struct {
		key    string
		weight uint32
	}
	for _, c := range []struct {
		name     string
		capacity int
		adds     []add
		want     string // key count error, heaviest first
		floor    uint64
	}{
		{"empty", 2, nil, "", 0},
		{"weight 0 is nothing", 2, []add{{"a", 0}}, "", 0},
		{"below capacity it is exact", 3, []add{{"a", 1}, {"b", 5}, {"a", 2}}, "b 5 0, a 3 0", 0},
		{"a new key takes the smallest", 2, []add{{"a", 3}, {"b", 1}, {"c", 1}}, "a 3 0, c 2 1", 1},
		{"and may grow above the others", 2, []add{{"a", 3}, {"b", 1}, {"c", 1}, {"c", 10}}, "c 12 1, a 3 0", 1},
		{"one that comes back has an error", 1, []add{{"a", 4}, {"b", 1}, {"a", 1}}, "a 6 5", 5},
		{"the empty key is a key", 2, []add{{"", 4}, {"b", 1}}, " 4 0, b 1 0", 0},
		{"capacity is at least one", 0, []add{{"a", 4}}, "a 4 0", 0},
	} {
		s := NewSummary(c.capacity)
		for _, a := range c.adds {
			s.Add([]byte(a.key), a.weight)
			checkShape(t, s)
		}
		var got []string
		for _, e := range merge(max(1, c.capacity), s).entries {
			got = append(got, fmt.Sprintf("%s %d %d", e.key, e.count, e.err))
		}
		if s := strings.Join(got, ", "); s != c.want {
			t.Errorf("%s: %q, want %q", c.name, s, c.want)
		}
		if s.Floor() != c.floor {
			t.Errorf("%s: floor %d, want %d", c.name, s.Floor(), c.floor)
		}
	}
}

func TestLongKeysAreCut(t *testing.T) {
	t.Parallel()
	s := NewSummary(4)
	long := strings.Repeat("x", MaxKeyBytes)
	s.Add([]byte(long+"a"), 1)
	s.Add([]byte(long+"b"), 1)
	s.Add([]byte(long), 1)
	s.Add([]byte(long[1:]), 1)
	m := merge(4, s)
	if len(m.entries) != 2 || m.entries[0].key != long || m.entries[0].count != 3 {
		t.Errorf("%d entries, first %q with %d", len(m.entries), m.entries[0].key, m.entries[0].count)
	}
}

func TestMergeSteps(t *testing.T) {
	t.Parallel()
	a, b := NewSummary(2), NewSummary(2)
	for _, k := range "xxxxxyyz" { // x 5 0, z 3 2, floor 2
		a.Add([]byte(string(k)), 1)
	}
	for _, k := range "xxw" { // x 2 0, w 1 0, floor 0
		b.Add([]byte(string(k)), 1)
	}
	a.Merge(b)
	checkShape(t, a)
	m := merge(2, a)
	got := fmt.Sprint(m.entries[0], m.entries[1], m.floor, m.total)
	// x is in both; z was not in b, whose floor is 0; w may have been in a up
	// to 2, and lost its place with 3 to z, which comes later but is as heavy.
	if want := "{x 7 0 0 3} {w 3 2 0 3} 3 11"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Random streams, many summaries, merged in any grouping.
func TestMergeKeepsTheBound(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		capacity := 1 + r.IntN(20)
		zipf := rand.NewZipf(r, 1.05+r.Float64(), 1, 500)
		truth := map[string]uint64{}
		sums := make([]*Summary, 1+r.IntN(12))
		for i := range sums {
			sums[i] = NewSummary(capacity)
			for range r.IntN(1000) {
				key, w := fmt.Sprint(zipf.Uint64()), uint32(1+r.IntN(9))
				sums[i].Add([]byte(key), w)
				truth[key] += uint64(w)
			}
			checkShape(t, sums[i])
		}
		checkBounds(t, merge(capacity, sums...), capacity, truth)
		for _, other := range sums[1:] {
			sums[0].Merge(other)
			checkShape(t, sums[0])
		}
		checkBounds(t, merge(capacity, sums[0]), capacity, truth)
	}
}

// FuzzSummary reads the input as operations on two summaries and compares
// them, and their merge, with exact counts.
func FuzzSummary(f *testing.F) {
	f.Add([]byte("abcabcaabbddaabbffe"), uint8(3))
	f.Add(binary.LittleEndian.AppendUint64([]byte{0xff, 0, 0xff, 1, 0xfe, 9}, 1<<60), uint8(1))
	f.Fuzz(func(t *testing.T, ops []byte, capacity uint8) {
		k := 1 + int(capacity)%16
		sums := [2]*Summary{NewSummary(k), NewSummary(k)}
		truths := [2]map[string]uint64{{}, {}}
		both := map[string]uint64{}
		which := 0
		for i := 0; i+1 < len(ops); i += 2 {
			key, weight := []byte{ops[i] % 64}, uint32(ops[i+1])
			switch ops[i] {
			case 0xff:
				which = 1 - which
				continue
			case 0xfe: // what it has seen until now goes to the other
				sums[1-which].Merge(sums[which])
				for key, n := range truths[which] {
					truths[1-which][key] += n
				}
				sums[which].Reset()
				truths[which] = map[string]uint64{}
				continue
			}
			sums[which].Add(key, weight)
			if weight > 0 {
				truths[which][string(key)] += uint64(weight)
			}
		}
		for i, s := range sums {
			checkShape(t, s)
			checkBounds(t, merge(k, s), k, truths[i])
			for key, n := range truths[i] {
				both[key] += n
			}
		}
		checkBounds(t, merge(k, sums[0], sums[1]), k, both)
	})
}

func TestAddAllocatesNothing(t *testing.T) {
	s := NewSummary(100)
	key := make([]byte, 8)
	i := uint64(0)
	if n := testing.AllocsPerRun(10_000, func() {
		i++
		binary.LittleEndian.PutUint64(key, i*0x9e3779b97f4a7c15>>40) // each replaces the smallest
		s.Add(key, 1)
	}); n != 0 {
		t.Errorf("%v allocations for each Add", n)
	}
}

func BenchmarkAdd(b *testing.B) {
	for _, c := range []struct {
		name string
		next func(r *rand.Rand, z *rand.Zipf, i int) uint64
	}{
		{"zipf", func(_ *rand.Rand, z *rand.Zipf, _ int) uint64 { return z.Uint64() }},
		{"replace", func(_ *rand.Rand, _ *rand.Zipf, i int) uint64 { return uint64(i) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 1))
			z := rand.NewZipf(r, 1.1, 1, 99_999)
			keys := make([][]byte, 1<<16)
			for i := range keys {
				keys[i] = fmt.Appendf(nil, "\x00/usr/local/bin/some-program-%d", c.next(r, z, i))
			}
			s := NewSummary(100)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				s.Add(keys[i&(1<<16-1)], 1)
			}
		})
	}
}
