// SPDX-License-Identifier: Apache-2.0

package topn

import (
	"cmp"
	"slices"
)

// counted is what a merge knows of one key.
type counted struct {
	key        string
	count, err uint64
	variance   float64
	// floors is the sum of the floors of the parts that hold the key.
	floors uint64
}

// merged is the union of summaries, the heaviest key first.
type merged struct {
	entries []counted
	// floor is the most that a key which is not among the entries can have.
	floor uint64
	total uint64
}

// merge joins summaries of parts of a stream into one of the whole stream,
// with at most capacity entries. A part that does not hold a key may have
// seen it up to its floor, so that much goes to the count and to the error.
// This is the merge of Agrawal et al.: floor and errors stay below
// total/capacity, however often it is repeated.
func merge(capacity int, parts ...*Summary) merged {
	var out merged
	found := map[string]int{}
	floors := uint64(0)
	for _, part := range parts {
		out.total += part.total
		floors += part.floor
		for n := range part.slots {
			held, key := &part.slots[n], part.key(int32(n))
			at, ok := found[string(key)]
			if !ok {
				at = len(out.entries)
				out.entries = append(out.entries, counted{key: string(key)})
				found[out.entries[at].key] = at
			}
			e := &out.entries[at]
			e.count += held.count
			e.err += held.err
			e.variance += held.variance
			e.floors += part.floor
		}
	}
	for i := range out.entries {
		e := &out.entries[i]
		e.count += floors - e.floors
		e.err += floors - e.floors
	}
	slices.SortFunc(out.entries, func(a, b counted) int {
		return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.key, b.key))
	})
	out.floor = floors
	if len(out.entries) > capacity {
		out.floor = max(floors, out.entries[capacity].count)
		out.entries = out.entries[:capacity]
	}
	return out
}

// Merge adds what another summary has seen. It allocates.
func (s *Summary) Merge(other *Summary) {
	m := merge(cap(s.slots), s, other)
	s.Reset()
	for _, e := range m.entries {
		// The floor is 0 here, so counts and errors go in as they are.
		s.add([]byte(e.key), e.count, e.err, e.variance)
	}
	s.floor, s.total = m.floor, m.total
}
