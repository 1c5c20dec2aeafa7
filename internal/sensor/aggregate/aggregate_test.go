// SPDX-License-Identifier: Apache-2.0

package aggregate

import (
	"testing"
	"time"
)

func TestRate(t *testing.T) {
	t.Parallel()
	start := time.Unix(1000, 0)
	var r Rate
	for i, step := range []struct {
		value uint64
		after time.Duration
		want  float64
	}{
		{100, 0, 0},                         // the first look says nothing
		{150, 5 * time.Second, 10},          // 50 in 5 s
		{150, 10 * time.Second, 0},          // nothing happened
		{140, 15 * time.Second, 0},          // went back: no negative rate
		{190, 20 * time.Second, 10},         // and goes on from there
		{200, 20 * time.Second, 0},          // no time has passed
		{300, 22500 * time.Millisecond, 40}, // another period
	} {
		if got := r.Update(step.value, start.Add(step.after)); got != step.want {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
}
