// SPDX-License-Identifier: Apache-2.0

package privilege

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/testkit"
)

// What hooks see is never counted as other, whatever threads do.
func TestNothingOther(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	p, _ := startBoth(t, host, New(), cgroup.Only())
	for _, c := range callCases {
		t.Run(c.name, func(t *testing.T) {
			skipRefused(t, p, c.name)
			checkCalls(t, cgroup, p, c.once, c.each, c.gains, 4)
		})
	}
	folder := makePrograms(t, false)
	for _, c := range execCases {
		if c.nosuid || c.traced {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			if c.name == "real user, effective root, suid root" && guesses(p) {
				t.Skip("the old credentials are guessed, and this exec looks like a gain")
			}
			w := cgroup.Start(t, "privilege")
			w.Do("setup", strings.Fields(c.setup)...)
			watch := newWatch(t, p)
			w.Do("exec", strconv.Itoa(testkit.Few), filepath.Join(folder, c.program))
			w.Stop()
			want := counts{}
			for name, times := range c.each {
				want.plus(name, times*testkit.Few)
			}
			expect(t, watch, want)
		})
	}
}

// lower makes the table believe that a process had nothing.
func lower(t *testing.T, table *probe.Probe, pid int) {
	t.Helper()
	var entry abi.Process
	if err := table.Map("processes").Lookup(uint32(pid), &entry); err != nil {
		t.Fatal(err)
	}
	entry.SeenEuid, entry.SeenCaps = 1000, 0
	if err := table.Map("processes").Put(uint32(pid), &entry); err != nil {
		t.Fatal(err)
	}
}

// A process that is root although it was last seen as an ordinary user is
// counted when it ends, once.
func TestOther(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	p, table := startBoth(t, host, New(), cgroup.Only())
	watch := newWatch(t, p)
	for range testkit.Few {
		w := cgroup.Start(t, "privilege")
		w.Do("setup")
		lower(t, table, w.PID())
		w.Stop()
	}
	expect(t, watch, counts{"other": testkit.Few})
}
