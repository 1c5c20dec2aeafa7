// SPDX-License-Identifier: Apache-2.0

package identity

import "time"

// The time that lookups of one kind may take: half a percent of what passes,
// and what was not used before, up to an eighth of a second, which is a
// thousand lookups or more.
const (
	budgetShare = 200
	budgetMost  = 125 * time.Millisecond
)

// budget bounds the time spent on reading files in the path of events. A
// lookup may overdraw it; then none starts until it is repaid.
type budget struct {
	now     func() time.Time
	left    time.Duration
	at      time.Time
	started bool
}

// open says whether there is time left.
func (b *budget) open() bool {
	now := b.now()
	if !b.started {
		b.started, b.left = true, budgetMost
	} else if passed := now.Sub(b.at); passed > 0 {
		b.left = min(b.left+passed/budgetShare, budgetMost)
	}
	b.at = now
	return b.left > 0
}

// charge takes the time since start.
func (b *budget) charge(start time.Time) { b.left -= max(0, b.now().Sub(start)) }
