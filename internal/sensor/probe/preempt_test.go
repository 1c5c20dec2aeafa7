// SPDX-License-Identifier: Apache-2.0

package probe

import "testing"

func TestPreemptible(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		release, version, modes string
		want                    bool
	}{
		"not at all":            {"5.10.0-46-cloud-amd64", "#1 SMP Debian 5.10.262-1 (2026-01-01)", "", false},
		"always":                {"6.6.1", "#1 SMP PREEMPT Tue", "", true},
		"real time":             {"6.12.1-rt", "#1 SMP PREEMPT_RT Debian", "", true},
		"voluntary":             {"6.12.57", "#1 SMP PREEMPT_DYNAMIC Debian", "none (voluntary) full \n", false},
		"full":                  {"6.12.57", "#1 SMP PREEMPT_DYNAMIC Debian", "none voluntary (full) \n", true},
		"lazy":                  {"6.18.1", "#1 SMP PREEMPT_DYNAMIC", "none voluntary full (lazy) \n", true},
		"unknown, an old one":   {"6.18.1", "#1 SMP PREEMPT_DYNAMIC", "", false},
		"unknown, a newer one":  {"7.3.4+deb13-cloud-amd64", "#1 SMP PREEMPT_DYNAMIC Debian", "", true},
		"a release that is odd": {"x", "#1 SMP PREEMPT_DYNAMIC", "", false},
		"modes that are odd":    {"7.1.0", "#1 SMP PREEMPT_DYNAMIC", "(none", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := preemptible(c.release, c.version, c.modes); got != c.want {
				t.Errorf("got %t", got)
			}
		})
	}
}
